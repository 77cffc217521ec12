"""`Executor`: what layers and composites compute with, as the int8 ops of TFLite compute it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from keras.layers import Layer

from tfcompress.converters.export.scope import is_exporting
from tfcompress.model.kernels import Kernel, kernels_of

from . import numerics
from .fake_quant import FakeQuant
from .ops import activations, affine, linear

__all__ = ["Executor", "limit_key"]

Activation = Callable[[Any], Any]


@dataclass(frozen=True)
class Executor:
    """Everything that one call of a quantized layer rounds with.

    `QuantizeWrapper` makes one for each call, and hands it to the composite that computes the
    layer. Biases are rounded in inference only: the converter rounds those of an exported graph.

    Attributes:
        inner: `FakeQuant` of each tensor between the ops, by name.
        limits: Learned largest weights per channel, by `limit_key` of the kernel.
        steps: Distance between neighbouring values of the layer's inputs, float scalars by the
            name of the argument. An input that is not quantized, or is not known to be, is not in
            it. Several tensors in one argument have a list.
        training: Whether the layer is being trained.
        rounds_kernels: Whether kernels are quantized.
        weight_bits: Bit width of kernels.
        add_loss: Takes the losses of layers inside.
    """

    inner: Mapping[str, FakeQuant]
    limits: Mapping[str, keras.Variable]
    steps: Mapping[str, Any]
    training: bool
    rounds_kernels: bool
    weight_bits: int
    add_loss: Callable[[Any], None]

    def fake_quant(self, name: str, x: Any, observe: bool = True) -> Any:
        """Round an inner tensor to int8.

        Args:
            name: Name of the tensor, one that the composite declares.
            x: Float tensor of any shape.
            observe: Whether the range of the name may follow `x` in training. Defaults to True.

        Returns:
            Tensor of the shape and dtype of `x`.
        """
        return self.inner[name](x, observe=observe)

    def observe(self, name: str, x: Any) -> None:
        """Let the range of an inner tensor follow `x`, which need not be that tensor."""
        if not is_exporting():
            self.inner[name](x)

    def step(self, name: str) -> Any:
        """Return the distance between neighbouring values of an inner tensor, to round a bias.

        Args:
            name: Name of the tensor, one that the composite declares.

        Returns:
            A float32 scalar, or None if biases are not rounded in this call.
        """
        return self.inner[name].step() if self._rounds_biases else None

    def input_step(self, argument: str | None = None) -> Any:
        """Return the distance between neighbouring values of an input, to round a bias.

        Args:
            argument: Name of the argument of the layer's `call`. Defaults to the first input that
                has one.

        Returns:
            A float32 scalar; a list of them for an argument with several tensors; or None if
            biases are not rounded in this call or the input is not quantized.
        """
        if not (self._rounds_biases and self.steps):
            return None
        step = self.steps.get(argument or next(iter(self.steps)))
        if step is None:
            return None
        # Keras casts it to half precision where it casts the input.
        return keras.tree.map_structure(lambda s: ops.cast(s, "float32"), step)

    @property
    def _rounds_biases(self) -> bool:
        return not self.training and not is_exporting()

    def with_input_step(self, argument: str, step: Any) -> Executor:
        """Return an executor for a layer inside this one, with the step of its only input."""
        return replace(self, steps={} if step is None else {argument: step})

    def apply(self, layer: Layer, *args: Any, **kwargs: Any) -> Any:
        """Call a layer with its kernels rounded to int8, and nothing else."""
        kernels = kernels_of(layer) if self.rounds_kernels else []
        mapping = [(kernel.variable, self._rounded(kernel)) for kernel in kernels]
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

    def kernel(self, layer: Layer, name: str) -> Any:
        """Return a kernel of the layer, rounded to int8.

        Args:
            layer: A built layer.
            name: Name of the variable: "kernel".

        Returns:
            Tensor of the kernel's shape.
        """
        return next(
            self._rounded(kernel)
            for kernel in kernels_of(layer)
            if kernel.layer is layer and kernel.variable.name == name
        )

    def activate(self, activation: Activation, y: Any) -> Any:
        """Apply an activation; round what comes before it if TFLite does not fuse it."""
        if not activations.is_fused(activation):
            y = self.fake_quant("linear", y)
        return activations.activate(activation, y)

    def linear(
        self,
        layer: Layer,
        x: Any,
        step: Any = None,
        factor: float = 1.0,
        activation: Activation = keras.activations.linear,
        norms: Sequence[Layer] = (),
    ) -> Any:
        """Compute a dense layer or convolution as one op.

        The layer's own activation is not applied.

        Args:
            layer: A built layer. One that is not linear, or not supported, is called as it is.
            x: Input tensor.
            step: Distance between neighbouring values of `x`, a float32 scalar. Defaults to None:
                the bias is not rounded.
            factor: Factor of the output. It goes into kernel and bias. Defaults to 1.
            activation: An activation that TFLite fuses. Defaults to none.
            norms: Batch normalization layers whose factors go into kernel and bias. Defaults to
                none.

        Returns:
            The output tensor.
        """
        if linear.is_linear(layer):
            kernel, bias = self._fold(layer, step, factor, norms)
            return linear.compute(layer, x, kernel, bias, activation)
        y = self.apply(layer, x)
        return activation(y if factor == 1.0 else y * ops.cast(factor, y.dtype))

    def affine(self, layer: Layer, x: Any, activation: Activation) -> Any:
        """Compute a layer that scales and shifts each channel as one op.

        Args:
            layer: A layer that `ops.affine.is_affine` accepts.
            x: Input tensor, channels last.
            activation: An activation that TFLite fuses.

        Returns:
            Tensor of the shape of `x`.
        """
        with _constant_if_exporting() as constant:
            factor, offset = affine.factors(layer, x.shape[-1])
            step = self.input_step()
            offset = numerics.round_bias(offset, step, ops.abs(factor), self.weight_bits)
            factor, offset = constant(factor), _unequal(constant(offset))
        return affine.compute(x, factor, offset, activation)

    def round_bias(self, bias: Any, step: Any, kernel: Any) -> Any:
        """Round the bias of a product with a kernel.

        Args:
            bias: Float tensor (channels,).
            step: Distance between neighbouring values of the input, a float32 scalar or None.
            kernel: Kernel, with the output channels on the last axis.

        Returns:
            A float32 tensor (channels,).
        """
        bias = ops.cast(bias, "float32")
        if step is None:
            return bias
        largest = ops.max(ops.abs(kernel), axis=range(len(kernel.shape) - 1))
        return numerics.round_bias(bias, step, ops.cast(largest, "float32"), self.weight_bits)

    def _rounded(self, kernel: Kernel) -> Any:
        """Return the kernel rounded to int8: a constant in an exported graph, else a tensor."""
        with _constant_if_exporting() as constant:
            value = ops.convert_to_tensor(kernel.variable)
            limit = self.limits.get(limit_key(kernel))
            rounded = numerics.fake_quant_kernel(
                value, kernel.output_axes, limit, bits=self.weight_bits
            )
            return constant(rounded)

    def _fold(
        self, layer: Layer, step: Any, factor: float, norms: Sequence[Layer]
    ) -> tuple[Any, Any]:
        """Return kernel and flat bias, rounded, with factors and normalization in them."""
        (kernel,) = (k for k in kernels_of(layer) if k.layer is layer)
        with _constant_if_exporting() as constant:
            weights = factor * ops.cast(self._rounded(kernel), "float32")
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
            bias = numerics.round_bias(bias, step, largest, self.weight_bits)
            return constant(weights), _unequal(constant(bias))


def limit_key(kernel: Kernel) -> str:
    """Return the key of a kernel in `Executor.limits`."""
    return str(id(kernel.variable))


def _unequal(bias: Any) -> Any:
    """Return an exported bias whose values are not all equal, moved by the last bit of the first.

    The converter stores equal values as one, and rounds all of them by the scale of the first
    channel.
    """
    if isinstance(bias, np.ndarray) and bias.size > 1 and bias[0] and (bias == bias[0]).all():
        bias = np.array(bias)
        bias[0] = np.nextafter(bias[0], np.zeros_like(bias[0]))
    return bias


@contextlib.contextmanager
def _constant_if_exporting() -> Iterator[Callable[[Any], Any]]:
    """Compute now what an exported graph holds as a constant."""
    if not is_exporting():
        yield lambda value: value
        return
    with tf.init_scope():
        yield lambda value: np.asarray(value)
