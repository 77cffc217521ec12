"""`equalize`: a model in, one out that computes the same, in channels of even ranges."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfcompress.model.filters import Filters
from tfcompress.model.graph import Node
from tfcompress.model.rebuild import copy_layer, from_config, rebuild_layers, warn_of_untied

from .inserted import is_inserted
from .plan import EqualizationPlan, equalization_plan
from .scaling import Norm

__all__ = ["apply", "equalize"]

Array = npt.NDArray[Any]


def equalize(
    model: keras.Model,
    samples: Any,
    *,
    filters: Filters = None,
    alpha: float = 0.5,
    rounds: int = 1,
    max_samples: int = 64,
    insert_scales: bool = False,
) -> keras.Model:
    """Return a model that computes the same function, and quantizes better.

    In an int8 file all channels of a tensor share one scale. Where one channel is a hundred times
    as large as another, the other is left with two or three steps of the 256. This function divides
    each channel by a factor, in the weights that make it, and multiplies the weights that read it,
    so that all channels fill the range. No training is needed: some samples show how large the
    channels are. Weights have a scale for each output channel, so that they lose little by it.

    A factor goes through ReLU, LeakyReLU, PReLU, pooling, padding, reshaping and concatenation.
    Channels that are added to each other get one factor. Print `equalization_plan(model, samples)`
    to see what is scaled, and why the rest is not: outputs of the model, and what goes through
    another activation such as ReLU6 or swish.

    >>> hidden = keras.layers.Dense(2, kernel_initializer=keras.initializers.Constant([[1, 100]]))
    >>> model = keras.Sequential([keras.Input((1,)), hidden, keras.layers.Dense(1)])
    >>> even = equalize(model, np.ones((4, 1)), alpha=1.0)
    >>> even.weights[0].numpy()
    array([[100., 100.]], dtype=float32)
    >>> np.allclose(even(np.ones((1, 1))), model(np.ones((1, 1))), rtol=1e-5)
    True

    Args:
        model: A built model; subclassed, if its `call` can be traced. It stays as it is.
        samples: Inputs like those that the model will see: an array (for one input), a dict of
            arrays by input name, a generator or `tf.data.Dataset` of either, or the path of an .npz
            file.
        filters: Layers whose outputs may be scaled: a regular expression searched in the layer's
            path, a list of layers or names, or a function of the layer. Defaults to all.
        alpha: How much of the unevenness moves into the weights that read the channels, from 0 to
            1. At 1 all channels of a tensor are as large. Weights of depthwise convolutions have a
            scale for each channel, so that channels that only they read take 1. Defaults to 0.5.
        rounds: How often the formula is applied, from 1 to 20. Defaults to 1.
        max_samples: Number of samples to use at most: evenly spaced ones of an array, the first
            ones of a generator or dataset. Defaults to 64.
        insert_scales: Whether a layer that scales channels is put between a normalization and the
            projections that read it, where a sum reads it as well. Defaults to False.

    Returns:
        A new functional model with the same layers, not compiled. A `BatchNormalization` without a
        `gamma` gets one where its output is scaled.

    Raises:
        TypeError: `model` is no Keras model, or an argument has the wrong type.
        ValueError: The model is not built, cannot be traced, is quantization-aware, or holds NaN;
            the samples do not fit it, hold NaN, or are none; an argument is out of range; or
            `filters` or one of its entries selects no layer that makes channels.

    Reference:
        Xiao et al., "SmoothQuant", https://arxiv.org/abs/2211.10438.
    """
    return apply(
        equalization_plan(
            model,
            samples,
            filters=filters,
            alpha=alpha,
            rounds=rounds,
            max_samples=max_samples,
            insert_scales=insert_scales,
        )
    )


def apply(plan: EqualizationPlan) -> keras.Model:
    """Return the equalized model of a plan."""
    warn_of_untied(plan.model)
    return rebuild_layers(plan.model, _Scaler(plan).copy)


class _Scaler:
    """Builds the copy of a model with scaled weights; every layer is copied once."""

    def __init__(self, plan: EqualizationPlan) -> None:
        self.factor = plan.factor
        self.norms = plan.scaling.norms
        self.weights: dict[int, Array] = {}
        for part in plan.scaling.parts.values():
            factor = self.factor[part.ids]
            if (factor != 1).any():
                key = id(part.variable)
                now = self.weights.get(key, _array(part.variable))
                self.weights[key] = now / factor if part.reads else now * factor

    def copy(self, node: Node, args: Any, kwargs: Any) -> Any:
        operation = node.operation
        if not isinstance(operation, keras.layers.Layer):
            return operation
        if id(operation) in self.norms:
            return self.normalization(self.norms[id(operation)], args, kwargs)
        if not any(id(variable) in self.weights for variable in operation.variables):
            if is_inserted(operation):
                return lambda x: x  # It would scale by ones.
            return copy_layer(operation, args, kwargs)
        return from_config(operation, operation.get_config(), args, kwargs, self.value)

    def value(self, variable: keras.Variable) -> Array:
        array = self.weights.get(id(variable))
        return _array(variable) if array is None else array

    def normalization(self, norm: Norm, args: Any, kwargs: Any) -> keras.layers.Layer:
        layer = norm.layer
        read, made = self.factor[norm.read], self.factor[norm.made]
        copy = copy_layer(layer, args, kwargs)
        if (read == 1).all() and (made == 1).all():
            return copy
        if layer.gamma is None:
            copy = type(layer).from_config({**layer.get_config(), "scale": True})
            copy.build(args[0].shape)
            copy.gamma.assign(np.ones(copy.gamma.shape))
            for name in ("beta", "moving_mean", "moving_variance"):
                if getattr(layer, name) is not None:
                    getattr(copy, name).assign(getattr(layer, name))
        values = scaled_normalization(
            _array(copy.gamma),
            _array(copy.moving_mean),
            _array(copy.moving_variance),
            layer.epsilon,
            read,
            made,
        )
        for variable, array in zip(
            (copy.gamma, copy.moving_mean, copy.moving_variance), values, strict=True
        ):
            variable.assign(array)
        if copy.beta is not None:
            copy.beta.assign(_array(copy.beta) * made)
        return copy


def scaled_normalization(
    gamma: Array, mean: Array, variance: Array, epsilon: float, read: Array, made: Array
) -> tuple[Array, Array, Array]:
    """Return the parameters of a batch normalization of scaled channels.

    The statistics take the scale of what is read, as they would in training. Where `epsilon` leaves
    no room for that, `gamma` takes the rest, so that the function is the same.

    Args:
        gamma: Factors, shape `(channels,)`.
        mean: Moving means, shape `(channels,)`.
        variance: Moving variances, shape `(channels,)`.
        epsilon: What is added to the variances.
        read: What the channels that are read have been multiplied by, shape `(channels,)`.
        made: What the result is to be multiplied by, shape `(channels,)`.

    Returns:
        The new `gamma`, `mean` and `variance`.
    """
    new = np.maximum(read**2 * (variance + epsilon) - epsilon, 0)
    rest = np.sqrt((new + epsilon) / (variance + epsilon)) / read
    return gamma * made * rest, mean * read, new


def _array(variable: keras.Variable) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)
