"""Score the channels of a model; the lowest are cut first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfcompress.model.batches import batches
from tfcompress.model.graph import functional

from .activations import averages, per_unit
from .groups import ChannelGroup, GroupMember

__all__ = [
    "ChannelImportance",
    "activation_mean",
    "activation_zeros",
    "bn_scale",
    "l1_norm",
    "l2_norm",
    "random",
    "taylor",
]

Scores: TypeAlias = list[npt.NDArray[np.float64]]

ChannelImportance: TypeAlias = Callable[[keras.Model, Sequence[ChannelGroup]], Scores]
"""A model and its groups in, a score for each unit of each group out; the lowest are cut first."""


def l1_norm(model: keras.Model, groups: Sequence[ChannelGroup]) -> Scores:
    """Score each unit by the absolute values of all weights that go with it.

    A unit's weights are those of every kernel of its group, of those that make it and of those that
    read it. The score is the mean over the kernels of the sum over the unit's weights.

    >>> from tfcompress import channel_groups
    >>> dense = keras.layers.Dense(2, use_bias=False, kernel_initializer="ones")
    >>> model = keras.Sequential([keras.Input((3,)), dense, keras.layers.Dense(1)])
    >>> _ = model.layers[1].kernel.assign([[1.0], [-4.0]])
    >>> l1_norm(model, channel_groups(model).prunable)
    [array([2. , 3.5])]

    Args:
        model: The model.
        groups: Groups of it.

    Returns:
        For each group, an array of float64 with a score for each unit.

    Reference:
        Li et al., "Pruning Filters for Efficient ConvNets", https://arxiv.org/abs/1608.08710; over
        groups as in Fang et al., https://arxiv.org/abs/2301.12900.
    """
    return [_norm(group, np.abs) for group in groups]


def l2_norm(model: keras.Model, groups: Sequence[ChannelGroup]) -> Scores:
    """Score each unit by the squares of all weights that go with it: as `l1_norm`.

    >>> from tfcompress import channel_groups
    >>> dense = keras.layers.Dense(2, use_bias=False, kernel_initializer="ones")
    >>> model = keras.Sequential([keras.Input((3,)), dense, keras.layers.Dense(1)])
    >>> _ = model.layers[1].kernel.assign([[1.0], [-4.0]])
    >>> l2_norm(model, channel_groups(model).prunable)
    [array([2. , 9.5])]

    Args:
        model: The model.
        groups: Groups of it.

    Returns:
        For each group, an array of float64 with a score for each unit.

    Reference:
        Fang et al., "DepGraph: Towards Any Structural Pruning", https://arxiv.org/abs/2301.12900.
    """
    return [_norm(group, np.square) for group in groups]


def bn_scale(model: keras.Model, groups: Sequence[ChannelGroup]) -> Scores:
    """Score each unit by the factors that batch normalization scales it with, in absolute value.

    Where a group has no normalization, this is `l2_norm`. Meant for models that were trained with
    an L1 penalty on those factors.

    >>> from tfcompress import channel_groups
    >>> parts = [keras.layers.Dense(2), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    >>> model = keras.Sequential([keras.Input((3,)), *parts])
    >>> _ = parts[1].gamma.assign([-3.0, 1.0])
    >>> bn_scale(model, channel_groups(model).prunable)
    [array([3., 1.])]

    Args:
        model: The model.
        groups: Groups of it.

    Returns:
        For each group, an array of float64 with a score for each unit.

    Reference:
        Liu et al., "Learning Efficient Convolutional Networks through Network Slimming",
        https://arxiv.org/abs/1708.06519.
    """
    scores = []
    for group in groups:
        found = [
            _sums(group, member, np.abs(_array(member.variable)))
            for member in group.members
            if isinstance(member.layer, keras.layers.BatchNormalization)
            and member.variable is member.layer.gamma
        ]
        scores.append(np.mean(found, axis=0) if found else _norm(group, np.square))
    return scores


def random(seed: int = 0) -> ChannelImportance:
    """Scores at random: what any other importance must beat.

    >>> from tfcompress import channel_groups
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    >>> [score.shape for score in random()(model, channel_groups(model).prunable)]
    [(2,)]

    Args:
        seed: Of the generator. It goes on from call to call.

    Returns:
        A `ChannelImportance`.
    """
    generator = np.random.default_rng(seed)
    return lambda model, groups: [generator.random(group.size) for group in groups]


def taylor(x: Any, y: Any = None, loss: Any = None, batch_size: int = 32) -> ChannelImportance:
    """Scores by how much the loss would change, to first order, were a unit's weights zero.

    For each batch, weight times gradient is summed over the trainable weights that make the unit,
    kernels, biases and factors of normalization, and squared; the score is the mean over the
    batches.

    >>> from tfcompress import channel_groups
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    >>> importance = taylor(np.ones((8, 3)), np.ones((8, 1)), loss="mse")
    >>> [score.shape for score in importance(model, channel_groups(model).prunable)]
    [(2,)]

    Args:
        x: Inputs: an array, or a list or dictionary of arrays, with the samples first. Or a
            `tf.data.Dataset` or `keras.utils.PyDataset` of batches, as for `fit`.
        y: Targets, likewise; a data set has them itself, with weights of the samples if need be.
        loss: A loss or its name. Defaults to the one that the model was compiled with; a pruned
            model is not compiled.
        batch_size: Samples in a batch of arrays.

    Returns:
        A `ChannelImportance`.

    Raises:
        ValueError: When it is called: the model is not compiled, and there is no `loss`; or the
            data are empty, endless, do not fit the model, or have no targets.

    Reference:
        Molchanov et al., "Importance Estimation for Neural Network Pruning",
        https://arxiv.org/abs/1906.10771, equation 8.
    """

    def score(model: keras.Model, groups: Sequence[ChannelGroup]) -> Scores:
        if loss is None and not getattr(model, "compiled", False):
            raise ValueError(
                f"The model {model.name!r} is not compiled: give `taylor` the loss, as in "
                'taylor(x, y, loss="sparse_categorical_crossentropy").'
            )
        function = keras.losses.get(loss)
        makers = {
            id(member.variable): member.variable
            for group in groups
            for member in group.members
            if _makes(member)
        }
        totals = [np.zeros(group.size) for group in groups]
        count = 0
        for inputs, targets, weights in batches(model, x, y, batch_size):
            if targets is None:
                raise ValueError(
                    "`taylor` needs targets: taylor(x, y), or a tf.data.Dataset of (x, y)."
                )
            with tf.GradientTape() as tape:
                value = _loss(model, function, inputs, targets, weights)
            sources = [variable.value for variable in makers.values()]
            gradients = tape.gradient(value, sources, unconnected_gradients="zero")
            products = {
                key: _array(variable) * np.asarray(tf.convert_to_tensor(gradient))
                for (key, variable), gradient in zip(makers.items(), gradients, strict=True)
            }
            for group, total in zip(groups, totals, strict=True):
                change = np.zeros(group.size)
                for member in group.members:
                    if _makes(member):
                        change += _sums(group, member, products[id(member.variable)])
                total += np.square(change)
            count += 1
        return [total / count for total in totals]

    return score


def activation_mean(x: Any, batch_size: int = 32) -> ChannelImportance:
    """Scores by how strongly a unit fires: the mean of its absolute values where kernels read it.

    What depthwise kernels read does not count, since they hand each channel on. A group that no
    tensor between layers shows (heads of attention) gets `l2_norm`.

    >>> from tfcompress import channel_groups
    >>> dense = keras.layers.Dense(2, kernel_initializer=keras.initializers.Constant([[1, -2]]))
    >>> model = keras.Sequential([keras.Input((1,)), dense, keras.layers.Dense(1)])
    >>> activation_mean(np.ones((4, 1)))(model, channel_groups(model).prunable)
    [array([1., 2.])]

    Args:
        x: Inputs: an array, or a list or dictionary of arrays, with the samples first. Or a
            `tf.data.Dataset` or `keras.utils.PyDataset` of batches, as for `fit`.
        batch_size: Samples in a batch of arrays.

    Returns:
        A `ChannelImportance`.
    """
    return _activations(x, batch_size, np.abs)


def activation_zeros(x: Any, batch_size: int = 32) -> ChannelImportance:
    """Scores by how often a unit fires: one less the average share of zeros (APoZ).

    As `activation_mean` otherwise. Without a ReLU, hardly anything is zero, and all score 1.

    >>> from tfcompress import channel_groups
    >>> dense = keras.layers.Dense(
    ...     2, "relu", kernel_initializer=keras.initializers.Constant([[1, -2]]))
    >>> model = keras.Sequential([keras.Input((1,)), dense, keras.layers.Dense(1)])
    >>> activation_zeros(np.ones((4, 1)))(model, channel_groups(model).prunable)
    [array([1., 0.])]

    Args:
        x: Inputs: an array, or a list or dictionary of arrays, with the samples first. Or a
            `tf.data.Dataset` or `keras.utils.PyDataset` of batches, as for `fit`.
        batch_size: Samples in a batch of arrays.

    Returns:
        A `ChannelImportance`.

    Reference:
        Hu et al., "Network Trimming", https://arxiv.org/abs/1607.03250.
    """
    return _activations(x, batch_size, lambda array: (array != 0).astype(np.float64))


def _array(variable: keras.Variable) -> npt.NDArray[np.float64]:
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)


def _sums(
    group: ChannelGroup, member: GroupMember, array: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """Sum over all but a member's axis, by unit."""
    others = tuple(axis for axis in range(array.ndim) if axis != member.axis)
    return per_unit(group, member.units, array.sum(others))


def _loss(model: keras.Model, function: Any, inputs: list[Any], targets: Any, weights: Any) -> Any:
    x = keras.tree.pack_sequence_as(functional(model).input, inputs)
    outputs = model(x, training=False)
    if function is None:
        return model.compute_loss(
            x=x, y=targets, y_pred=outputs, sample_weight=weights, training=False
        )
    if isinstance(function, keras.losses.Loss):
        return function(targets, outputs, sample_weight=weights)
    values = function(targets, outputs)
    return tf.reduce_mean(values if weights is None else values * tf.cast(weights, values.dtype))


def _makes(member: GroupMember) -> bool:
    """Whether a trainable weight takes part in making the units."""
    return member.role != "input" and bool(member.variable.trainable)


def _norm(group: ChannelGroup, power: Callable[[Any], Any]) -> npt.NDArray[np.float64]:
    sums = [
        _sums(group, member, power(_array(member.variable)))
        for member in group.members
        if member.role != "parameter"
    ]
    return np.asarray(np.mean(sums, axis=0)) if sums else np.ones(group.size)


def _activations(x: Any, batch_size: int, measure: Callable[[Any], Any]) -> ChannelImportance:
    def score(model: keras.Model, groups: Sequence[ChannelGroup]) -> Scores:
        inputs = (inputs for inputs, _, _ in batches(model, x, None, batch_size))
        found = averages(model, groups, inputs, measure)
        return [
            _norm(group, np.square) if mean is None else mean
            for group, mean in zip(groups, found, strict=True)
        ]

    return score
