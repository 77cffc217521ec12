"""`QuantizeWrapper`: a Keras layer that computes another one as its int8 op does."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.layers import Layer

from tfcompress.converters.export.scope import is_exporting
from tfcompress.model.keras_private import mask_of, set_call_signature
from tfcompress.model.kernels import Kernel, kernels_of
from tfcompress.model.quantized import LayerQuantizer
from tfcompress.model.rebuild import copy_layer, symbolic_call

from .checks import check_activation, check_bools, check_wrapped
from .composites.table import composite_of
from .executor import Executor, limit_key
from .fake_quant import FakeQuant
from .layer_table import why_float
from .numerics import kept_float
from .observers.base import observer
from .ops import activations, affine, linear
from .ops.batch_norm import batch_norm

__all__ = ["QuantizeWrapper", "without_steps"]


@keras.saving.register_keras_serializable("tfcompress")
class QuantizeWrapper(LayerQuantizer, keras.layers.Layer):  # type: ignore[misc]
    """Compute a layer with the kernels that its int8 op will have.

    Kernels are rounded to int8 each time they are read, whatever layer reads them and however
    deep inside it they are. A BatchNormalization and an activation that follow a dense layer or a
    convolution belong to the same TFLite op, and are part of the wrapper. Layers of several ops,
    such as MultiHeadAttention, quantize the tensors between them too; see `composites`. The output
    is not rounded: a `FakeQuant` does that.

    The layer is called with the arguments of the wrapped one. `quantize_aware` adds `input_steps`
    to them: TFLite rounds a bias to products of an input step and a weight step.

    >>> dense = keras.layers.Dense(2, use_bias=False, kernel_initializer="identity")
    >>> QuantizeWrapper(dense)(np.float32([[0.25, 0.5]])).numpy().tolist()
    [[0.25, 0.5]]

    Args:
        layer: Layer to wrap, of any class.
        then: Layers that follow in the same op: BatchNormalization, ReLU, Activation. Defaults to
            none.
        activation: Activation that was taken out of the layer, a name or a function. Defaults to
            none.
        ranges: Name of the observer of inner tensors: "moving_average", "learned", "minmax" or one
            of your own. Defaults to "moving_average".
        momentum: Share of the old range that a training step keeps. Defaults to 0.99.
        symmetric: Whether the zero points of inner tensors are 0. Defaults to False.
        in_float: Whether to compute in float instead, in the file too. Defaults to False.
        frozen_statistics: Whether batch normalization uses its moving statistics in training, too.
            Defaults to False.
        weight_bits: Bit width of kernels. A .tflite file can be made with 8 and 4. Defaults to 8.
        activation_bits: Bit width of inner tensors. A .tflite file can be made with 8 only.
            Defaults to 8.
        **kwargs: Options of `keras.layers.Layer`: name, dtype, trainable.
    """

    def __init__(
        self,
        layer: Layer,
        then: Sequence[Layer] = (),
        activation: Any = None,
        ranges: str = "moving_average",
        momentum: float = 0.99,
        symmetric: bool = False,
        in_float: bool = False,
        frozen_statistics: bool = False,
        weight_bits: int = 8,
        activation_bits: int = 8,
        **kwargs: Any,
    ) -> None:
        self.observer = observer(ranges, momentum)
        check_wrapped(layer, then, weight_bits, activation_bits)
        check_bools(symmetric=symmetric, in_float=in_float, frozen_statistics=frozen_statistics)
        super().__init__(**kwargs)
        self.layer = layer
        self.then = list(then)
        self.activation = check_activation("activation", activation)
        self.ranges = ranges
        self.momentum = momentum
        self.symmetric = symmetric
        self.in_float = in_float
        self.frozen_statistics = frozen_statistics
        self.weight_bits = weight_bits
        self.activation_bits = activation_bits
        self.supports_masking = True
        self.composite = None if in_float else composite_of(layer)
        self.inner: dict[str, FakeQuant] = {}
        set_call_signature(self, _with_steps(inspect.signature(layer.call)))

    def _inner_tensors(self, shape: Any) -> Iterable[str]:
        """Yield the names of the tensors between the ops of this layer."""
        if self.composite is not None:
            yield from self.composite.tensors(self.layer, shape)
        unfused = self.activation is not None and not activations.is_fused(self.activation)
        if unfused and not self.in_float:
            yield "linear"

    def _fake_quant(self, name: str) -> FakeQuant:
        return FakeQuant(
            self.ranges,
            self.momentum,
            self.symmetric,
            bits=self.activation_bits,
            name=f"fake_quant_{name}",
            dtype=self.dtype_policy,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the layer. An unbuilt layer inside is built first."""
        if not self.layer.built:
            # Only the layer itself can build itself from these arguments.
            symbolic_call(self.layer, args, without_steps(kwargs))
        return super().__call__(*args, **kwargs)

    def build(self, input_shape: Any) -> None:
        """Create ranges, and the largest weights per channel if they are learned."""
        if not self.layer.built:
            self.layer.build(input_shape)
        for layer in self.then:
            if not layer.built:
                layer.build(self.layer.compute_output_shape(input_shape))
        self.inner = {name: self._fake_quant(name) for name in self._inner_tensors(input_shape)}
        for fake_quant in self.inner.values():
            fake_quant.build(None)
        self.limits = {
            limit_key(kernel): self._limit(kernel)
            for kernel in kernels_of(self.layer)
            if self.observer.trainable and not self.in_float
        }
        self.built = True

    def _limit(self, kernel: Kernel) -> keras.Variable:
        shared = tuple(i for i in range(len(kernel.variable.shape)) if i not in kernel.output_axes)
        largest = np.abs(kernel.numpy()).max(axis=shared, keepdims=True)
        limit = self.add_weight(
            shape=largest.shape,
            initializer="zeros",
            dtype="float32",
            autocast=False,
            name=kernel.path.replace("/", "_") + "_limit",
        )
        limit.assign(largest)
        return limit

    def call(
        self,
        *args: Any,
        training: bool | None = None,
        input_steps: Mapping[str, Any] | None = None,
        only_step: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Compute the layer.

        Args:
            *args: Arguments of the wrapped layer.
            training: Whether ranges and statistics follow the batch. Defaults to False.
            input_steps: Distance between neighbouring values of each quantized input, float scalars
                by the name of the argument. Defaults to None: biases are not rounded.
            only_step: Which output to return that distance of, a float32 scalar, instead of all
                outputs. It is 0 where the layer does not round its output. Defaults to None.
            **kwargs: Arguments of the wrapped layer.

        Returns:
            The outputs of the wrapped layer.
        """
        q = self.executor(bool(training), input_steps)
        if only_step is not None:
            return self._output_step(q, only_step)
        if input_steps and "mask" in inspect.signature(self.layer.call).parameters:
            mask = _mask_of_only(args, kwargs)
            kwargs |= {} if mask is None else {"mask": mask}
        if self.in_float:
            return self._in_float(*args, training=training, **kwargs)
        first = args[0] if args else kwargs.get("inputs")
        if self.composite is not None:
            y = self.composite.compute(q, self.layer, *args, training=training, **kwargs)
        elif not training and linear.is_linear(self.layer):
            return self._as_one_op(q, first)
        elif not training and affine.is_affine(self.layer):
            return q.affine(self.layer, first, self._fused)
        elif isinstance(self.layer, keras.layers.BatchNormalization):
            y = self._plain(self.layer, *args, training=training, **kwargs)
        else:
            y = q.apply(self.layer, *args, **kwargs)
        if self.activation is not None:
            y = q.activate(self.activation, y)
        return self._followed(y, training)

    def executor(
        self, training: bool = False, input_steps: Mapping[str, Any] | None = None
    ) -> Executor:
        """Return what one call of the built layer rounds with."""
        return Executor(
            inner=self.inner,
            limits=self.limits,
            steps=input_steps or {},
            training=training,
            rounds_kernels=why_float(self.layer) is None,
            weight_bits=self.weight_bits,
            add_loss=self.add_loss,
        )

    def _output_step(self, q: Executor, index: int) -> Any:
        composite = self.composite
        if composite is None or composite.output_step is None:
            return ops.zeros(())
        step = composite.output_step(q, self.layer, index)
        return ops.zeros(()) if step is None else step

    def _in_float(self, *args: Any, training: bool | None, **kwargs: Any) -> Any:
        y = self._plain(self.layer, *args, training=training, **kwargs)
        if self.activation is not None:
            y = self.activation(y)
        y = self._followed(y, training)
        return keras.tree.map_structure(kept_float, y) if is_exporting() else y

    def _followed(self, y: Any, training: bool | None) -> Any:
        for layer in self.then:
            y = self._plain(layer, y, training=training)
        return y

    def _plain(self, layer: Layer, *args: Any, training: bool | None, **kwargs: Any) -> Any:
        """Compute a layer without rounding; batch normalization by its fast op."""
        if isinstance(layer, keras.layers.BatchNormalization):
            by_batch = bool(training) and not self.frozen_statistics
            x, *rest = args
            return batch_norm(layer, x, by_batch, *rest, **kwargs)
        return layer(*args, **kwargs)

    def _as_one_op(self, q: Executor, x: Any) -> Any:
        """Compute kernel, normalization, bias and fused activation together, as in the file."""
        norms = [la for la in self.then if isinstance(la, keras.layers.BatchNormalization)]
        if self.activation is None or activations.is_fused(self.activation):
            return q.linear(self.layer, x, q.input_step(), activation=self._fused, norms=norms)
        y = q.linear(self.layer, x, q.input_step(), norms=norms)
        return q.activate(self.activation, y)

    def _fused(self, x: Any) -> Any:
        """Apply the activation that belongs to the same op."""
        if self.activation is not None:
            x = self.activation(x)
        for layer in self.then:
            if not isinstance(layer, keras.layers.BatchNormalization):
                x = layer(x)
        return x

    def why_float(self) -> str | None:
        """Return why the layer is computed in float in the file, or None if it is not."""
        return "kept in float on request" if self.in_float else why_float(self.layer)

    def unwrapped(self, args: Any, kwargs: Any) -> list[Layer]:
        """Return copies of the layers inside as they were before they were wrapped.

        Args:
            args: Positional arguments that the layer is called with.
            kwargs: Keyword arguments that the layer is called with, without steps.

        Returns:
            The wrapped layer and the layers that follow in its op, with the weights as trained.
        """
        layer = copy_layer(self.layer, args, kwargs)
        if self.activation is not None:
            layer.activation = self.activation
        outputs = symbolic_call(layer, args, kwargs)
        copies = [layer]
        for follower in self.then:
            copies.append(copy_layer(follower, (outputs,), {}))
        return copies

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Return the shapes and dtypes of the wrapped layer: rounding changes neither."""
        if kwargs.get("only_step") is not None:
            return keras.KerasTensor((), "float32")
        return self.layer.compute_output_spec(*args, **without_steps(kwargs))

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Return the mask of the wrapped layer."""
        return self.layer.compute_mask(inputs, previous_mask)

    def get_config(self) -> dict[str, Any]:
        """Return all arguments of the layer."""
        serialize = keras.saving.serialize_keras_object
        activation = self.activation
        return {
            **super().get_config(),
            "layer": serialize(self.layer),
            "then": [serialize(layer) for layer in self.then],
            "activation": activation and keras.activations.serialize(activation),
            "ranges": self.ranges,
            "momentum": self.momentum,
            "symmetric": self.symmetric,
            "in_float": self.in_float,
            "frozen_statistics": self.frozen_statistics,
            "weight_bits": self.weight_bits,
            "activation_bits": self.activation_bits,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> QuantizeWrapper:
        """Return the layer of a config."""
        deserialize = keras.saving.deserialize_keras_object
        config = dict(config)
        config["layer"] = deserialize(config["layer"], custom_objects=custom_objects)
        config["then"] = [deserialize(t, custom_objects=custom_objects) for t in config["then"]]
        return cls(**config)


_STEPS = ("input_steps", "only_step")


def without_steps(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of the wrapped layer among those of the wrapper."""
    return {name: value for name, value in kwargs.items() if name not in _STEPS}


def _with_steps(signature: inspect.Signature) -> inspect.Signature:
    """Return the signature of a layer's `call` with the arguments of the wrapper added."""
    own = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in _STEPS]
    given = list(signature.parameters.values())
    catch_all = [p for p in given if p.kind is inspect.Parameter.VAR_KEYWORD]
    named = [p for p in given if p.kind is not inspect.Parameter.VAR_KEYWORD]
    return signature.replace(parameters=[*named, *own, *catch_all])


def _mask_of_only(args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Return the mask of the only tensor argument.

    Keras passes it to layers that have a single tensor argument, and counts the steps as another.
    """
    given = [
        value
        for value in (*args, *kwargs.values())
        if any(keras.ops.is_tensor(x) for x in keras.tree.flatten(value))
    ]
    if len(given) != 1:
        return None
    return keras.tree.map_structure(mask_of, given[0])
