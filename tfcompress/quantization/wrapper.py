"""`QuantizeWrapper`: a layer, and what TFLite fuses with it, computed as an int8 op would."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from keras.layers import Layer

from tfcompress.converters.export.scope import is_exporting
from tfcompress.model.graph import copy_layer, from_config, symbolic_call
from tfcompress.model.keras_private import set_call_signature
from tfcompress.model.kernels import Kernel, kernels_of
from tfcompress.model.quantized import LayerQuantizer
from tfcompress.quantization.composites.table import recipe_of
from tfcompress.quantization.ops.batch_norm import batch_norm

from . import numerics as quantizers
from .fake_quant import FakeQuant, step_of
from .layer_table import why_float
from .ops import activations, affine, linear
from .scheme import MOVING_AVERAGE

__all__ = ["QuantizeWrapper"]

Activation = Callable[[Any], Any]


@keras.saving.register_keras_serializable("tfcompress")
class QuantizeWrapper(LayerQuantizer, keras.layers.Layer):  # type: ignore[misc]
    """Compute a layer with the kernels that its int8 op will have.

    Kernels are rounded to int8 each time they are read, whatever layer reads them and however
    deep inside it they are. A BatchNormalization and an activation that follow a dense layer or a
    convolution belong to the same TFLite op and stand in here, with it. Layers of several ops, such
    as MultiHeadAttention, quantize the tensors between them too, as `recipes.py` says. What comes
    out is not rounded: a `FakeQuant` does that.

    >>> dense = keras.layers.Dense(2, use_bias=False, kernel_initializer="identity")
    >>> QuantizeWrapper(dense)(np.float32([[0.25, 0.5]])).numpy().tolist()
    [[0.25, 0.5]]

    Args:
        layer: Any layer.
        then: Layers that follow in the same op: BatchNormalization, ReLU, Activation.
        activation: That of the layer itself, if it was taken out of it: a name or a function.
        ranges: As in `Int8Scheme`.
        momentum: As in `Int8Scheme`.
        symmetric: As in `Int8Scheme.symmetric_activations`.
        in_float: Whether to compute in float instead, in the file too. Defaults to False.
        frozen_statistics: Whether batch normalization uses its moving statistics in training, too.
        **kwargs: As for any layer.
    """

    def __init__(
        self,
        layer: Layer,
        then: Sequence[Layer] = (),
        activation: Any = None,
        ranges: str = MOVING_AVERAGE,
        momentum: float = 0.99,
        symmetric: bool = False,
        in_float: bool = False,
        frozen_statistics: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layer = layer
        self.then = list(then)
        self.activation = None if activation is None else keras.activations.get(activation)
        self.ranges = ranges
        self.momentum = momentum
        self.symmetric = symmetric
        self.in_float = in_float
        self.frozen_statistics = frozen_statistics
        self.supports_masking = True
        self.recipe = None if in_float else recipe_of(layer)
        self.inner: dict[str, FakeQuant] = {}
        set_call_signature(self, layer)

    def _inner_tensors(self, shape: Any) -> Iterable[str]:
        """Names of the tensors between the ops of this layer."""
        if self.recipe is not None:
            yield from self.recipe.tensors(self.layer, shape)
        pointed = self.activation is not None and not activations.is_fused(self.activation)
        if pointed and not self.in_float:
            yield "linear"

    def _fake_quant(self, name: str) -> FakeQuant:
        return FakeQuant(
            self.ranges,
            self.momentum,
            self.symmetric,
            name=f"fake_quant_{name}",
            dtype=self.dtype_policy,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As for any layer; the wrapped one is built first, if it is not."""
        if not self.layer.built:
            # It knows best how to build itself from what it is called with.
            symbolic_call(self.layer, args, kwargs)
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
            _key(kernel): self._limit(kernel)
            for kernel in kernels_of(self.layer)
            if self.ranges != MOVING_AVERAGE and not self.in_float
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

    def call(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """As the wrapped layer, on its arguments."""
        if self.in_float:
            return self._in_float(*args, training=training, **kwargs)
        if self.recipe is not None:
            y = self.recipe.compute(self, self.layer, *args, training=training, **kwargs)
        elif not training and linear.is_linear(self.layer):
            return self._as_one_op(args[0])
        elif not training and affine.is_affine(self.layer):
            return self._affine(args[0])
        elif isinstance(self.layer, keras.layers.BatchNormalization):
            y = self._plain(self.layer, *args, training=training, **kwargs)
        else:
            y = self.apply(self.layer, *args, **kwargs)
        if self.activation is not None:
            y = self.activate(self.activation, y)
        return self._followed(y, training)

    def _in_float(self, *args: Any, training: bool | None, **kwargs: Any) -> Any:
        y = self._plain(self.layer, *args, training=training, **kwargs)
        if self.activation is not None:
            y = self.activation(y)
        y = self._followed(y, training)
        # The converter makes an op int8 when both its ends are; no int8 tensor passes a cast.
        wide = lambda x: ops.cast(ops.cast(x, "float64"), x.dtype)  # noqa: E731
        return keras.tree.map_structure(wide, y) if is_exporting() else y

    def _followed(self, y: Any, training: bool | None) -> Any:
        for layer in self.then:
            y = self._plain(layer, y, training=training)
        return y

    def _plain(self, layer: Layer, x: Any, *args: Any, training: bool | None, **kwargs: Any) -> Any:
        """The layer without rounding; batch normalization as fast as may be."""
        if isinstance(layer, keras.layers.BatchNormalization):
            by_batch = bool(training) and not self.frozen_statistics
            return batch_norm(layer, x, by_batch, *args, **kwargs)
        return layer(x, *args, **kwargs)

    # What recipes are written with.

    def fake_quant(self, name: str, x: Any, observe: bool = True) -> Any:
        """Round the inner tensor of this name to int8."""
        return self.inner[name](x, observe=observe)

    def apply(self, layer: Layer, *args: Any, **kwargs: Any) -> Any:
        """Call a layer whose kernels are read as int8."""
        kernels = kernels_of(layer) if why_float(layer) is None else []
        mapping = [(kernel.variable, self._quantized(kernel)) for kernel in kernels]
        if not mapping:
            return layer(*args, **kwargs)
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
            outputs = layer(*args, **kwargs)
        replaced = {id(variable) for variable, _ in mapping}
        for variable in layer.variables:
            value = scope.get_current_value(variable)
            if value is not None and id(variable) not in replaced:
                variable.assign(value)
        for loss in scope.losses:
            self.add_loss(loss)
        return outputs

    def observe(self, name: str, x: Any) -> None:
        """Let the range of this inner tensor follow `x`, which need not be that tensor."""
        if not is_exporting():
            self.inner[name](x)

    def linear(
        self,
        layer: Layer,
        x: Any,
        factor: float = 1.0,
        activation: Activation = keras.activations.linear,
    ) -> Any:
        """A dense layer or convolution as one op, times a factor, with an activation that fuses.

        The layer's own activation is the caller's to apply.
        """
        if linear.is_linear(layer):
            return linear.compute(layer, x, *self._folded(layer, x, factor=factor), activation)
        y = self.apply(layer, x)
        return activation(y if factor == 1.0 else y * ops.cast(factor, y.dtype))

    def kernel(self, layer: Layer, name: str) -> Any:
        """A kernel of the layer, rounded to int8."""
        return next(
            self._quantized(kernel)
            for kernel in kernels_of(layer)
            if kernel.layer is layer and kernel.variable.name == name
        )

    def activate(self, activation: Any, y: Any) -> Any:
        """An activation, with what comes before it rounded to int8 if TFLite does not fuse it."""
        if not activations.is_fused(activation):
            y = self.fake_quant("linear", y)
        return activations.activate(activation, y)

    def _quantized(self, kernel: Kernel) -> Any:
        """The kernel, rounded to int8: a constant in an exported graph, else a tensor."""
        with _frozen_if_exporting() as freeze:
            value = keras.ops.convert_to_tensor(kernel.variable)
            limit = self.limits.get(_key(kernel))
            return freeze(quantizers.fake_quant_kernel(value, kernel.output_axes, limit))

    def _as_one_op(self, x: Any) -> Any:
        """Kernel, normalization, bias and fused activation together, as in the file."""
        norms = [la for la in self.then if isinstance(la, keras.layers.BatchNormalization)]
        kernel, bias = self._folded(self.layer, x, norms)
        if self.activation is None or activations.is_fused(self.activation):
            return linear.compute(self.layer, x, kernel, bias, self._fused)
        y = linear.compute(self.layer, x, kernel, bias, keras.activations.linear)
        return self.activate(self.activation, y)

    def _affine(self, x: Any) -> Any:
        with _frozen_if_exporting() as freeze:
            factor, offset = affine.factors(self.layer, x.shape[-1])
            offset = quantizers.round_bias(offset, step_of(x), ops.abs(factor))
            factor, offset = freeze(factor), freeze(offset)
        return affine.compute(x, factor, offset, self._fused)

    def _fused(self, x: Any) -> Any:
        """The activation that belongs to the same op."""
        if self.activation is not None:
            x = self.activation(x)
        for layer in self.then:
            if not isinstance(layer, keras.layers.BatchNormalization):
                x = layer(x)
        return x

    def _folded(
        self, layer: Layer, x: Any, norms: Sequence[Layer] = (), factor: float = 1.0
    ) -> tuple[Any, Any]:
        """Kernel and flat bias, rounded, with factors and normalization multiplied into them."""
        (kernel,) = (k for k in kernels_of(layer) if k.layer is layer)
        with _frozen_if_exporting() as freeze:
            weights = factor * ops.cast(self._quantized(kernel), "float32")
            outputs = [weights.shape[axis] for axis in kernel.output_axes]
            bias = ops.zeros(outputs) if layer.bias is None else ops.cast(layer.bias, "float32")
            if kernel.depthwise:  # It has one axis, the kernel's outputs two.
                bias = ops.reshape(bias, outputs)
            bias = factor * ops.reshape(ops.broadcast_to(bias, outputs), (-1,))
            for norm in norms:
                scale, offset = affine.factors(norm, bias.shape[0])
                axes = range(len(weights.shape))
                shape = [weights.shape[axis] if axis in kernel.output_axes else 1 for axis in axes]
                weights = weights * ops.reshape(scale, shape)
                bias = bias * scale + offset
            shared = [axis for axis in range(len(weights.shape)) if axis not in kernel.output_axes]
            largest = ops.reshape(ops.max(ops.abs(weights), axis=shared), (-1,))
            bias = quantizers.round_bias(bias, step_of(x), largest)
            return freeze(weights), freeze(bias)

    def why_float(self) -> str | None:
        """Why it is computed in float in the file, or None if it is not."""
        return "kept in float on request" if self.in_float else why_float(self.layer)

    def unwrapped(self, args: Any, kwargs: Any) -> list[Layer]:
        """Copies of the layers inside as they were before they were wrapped, weights included."""
        config = self.layer.get_config()
        if self.activation is not None:
            config["activation"] = keras.activations.serialize(self.activation)
        layer = from_config(self.layer, config, args, kwargs)
        outputs = symbolic_call(layer, args, kwargs)
        copies = [layer]
        for follower in self.then:
            copies.append(copy_layer(follower, (outputs,), {}))
        return copies

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Shapes and types are those of the wrapped layer: rounding changes neither."""
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """That of the wrapped layer."""
        return self.layer.compute_mask(inputs, previous_mask)

    def get_config(self) -> dict[str, Any]:
        """All arguments."""
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
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> QuantizeWrapper:
        """The layer again."""
        deserialize = keras.saving.deserialize_keras_object
        config = dict(config)
        config["layer"] = deserialize(config["layer"], custom_objects=custom_objects)
        config["then"] = [deserialize(t, custom_objects=custom_objects) for t in config["then"]]
        return cls(**config)


@contextlib.contextmanager
def _frozen_if_exporting() -> Iterator[Callable[[Any], Any]]:
    """Compute now what an exported graph is to hold as a constant."""
    if not is_exporting():
        yield lambda value: value
        return
    with tf.init_scope():
        yield lambda value: np.asarray(value)


def _key(kernel: Kernel) -> str:
    return str(id(kernel.variable))
