"""Dense layers and convolutions as one TFLite op each: kernel, bias and activation together."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from tfcompress.model.layers import rule_class

__all__ = ["compute", "convolve", "is_linear"]

Activation = Callable[[Any], Any]


def is_linear(layer: keras.Layer) -> bool:
    """Return whether `compute` supports the layer."""
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return False
    kind = rule_class(layer)
    if kind is layers.EinsumDense:
        return _einsum_split(layer.equation) is not None
    return kind in _COMPUTE


def compute(layer: keras.Layer, x: Any, kernel: Any, bias: Any, activation: Activation) -> Any:
    """Compute the layer with another kernel, bias and activation.

    The activation comes before any reshaping back, so that TFLite fuses it. Convolutions over time
    become convolutions over images of width one, because TFLite has no other.

    Args:
        layer: A layer that `is_linear` accepts; its own weights and activation are not used.
        x: Float tensor, the layer's input.
        kernel: Float tensor in the shape of the layer's kernel.
        bias: Float tensor (output channels,).
        activation: Function of a tensor.

    Returns:
        The output tensor.
    """
    kernel, bias = ops.cast(kernel, x.dtype), ops.cast(bias, x.dtype)
    return _COMPUTE[rule_class(layer)](layer, x, kernel, bias, activation)


def _dense(layer: Any, x: Any, kernel: Any, bias: Any, activation: Activation) -> Any:
    flat = x if len(x.shape) == 2 else ops.reshape(x, (-1, kernel.shape[0]))
    y = activation(ops.matmul(flat, kernel) + bias)
    return y if len(x.shape) == 2 else _restore(y, x, len(x.shape) - 1, kernel.shape[1:])


def _einsum(layer: Any, x: Any, kernel: Any, bias: Any, activation: Activation) -> Any:
    summed = _einsum_split(layer.equation)
    assert summed is not None
    matrix = ops.reshape(kernel, (int(np.prod(kernel.shape[:summed])), -1))
    flat = ops.reshape(x, (-1, matrix.shape[0]))
    y = activation(ops.matmul(flat, matrix) + bias)
    return _restore(y, x, len(x.shape) - summed, kernel.shape[summed:])


def _restore(y: Any, x: Any, kept: int, outputs: tuple[int, ...]) -> Any:
    """Restore the leading axes of `x`. One of them may be free besides the batch."""
    shape, dynamic = list(x.shape[:kept]), ops.shape(x)
    if sum(size is None for size in shape) <= 1:
        return ops.reshape(y, [-1 if size is None else size for size in shape] + list(outputs))
    return ops.reshape(y, [*dynamic[:kept], *outputs])


def _einsum_split(equation: str) -> int | None:
    """Return how many leading axes of the kernel are summed over; None if it is no plain product.

    A plain product such as "abc,cde->abde" sums over the last axes of the input and the first of
    the kernel, and appends the others.
    """
    operands, _, result = equation.replace(" ", "").partition("->")
    left, _, kernel = operands.partition(",")
    left, result = left.replace("...", ""), result.replace("...", "")
    summed = sum(label not in result for label in kernel)
    plain = (
        0 < summed < len(kernel)
        and left[len(left) - summed :] == kernel[:summed]
        and result == left[: len(left) - summed] + kernel[summed:]
    )
    return summed if plain else None


def convolve(convolution: Callable[..., Any], layer: Any, x: Any, kernel: Any) -> Any:
    """Convolve over images, or over time as over images of width one.

    Args:
        convolution: `ops.conv` or `ops.depthwise_conv`.
        layer: Layer with the strides, the padding and the dilation.
        x: Float tensor of rank three or four.
        kernel: Float tensor in the shape of the layer's kernel.

    Returns:
        The output, a tensor of rank four.
    """
    if len(x.shape) == 4:
        return convolution(
            x,
            kernel,
            strides=tuple(layer.strides),
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
        )
    x, padding = _causal(layer, x)
    return convolution(
        ops.expand_dims(x, 2),
        kernel[:, None],
        strides=_square(layer.strides),
        padding=padding,
        dilation_rate=_square(layer.dilation_rate),
    )


def _convolution(
    convolution: Callable[..., Any],
    layer: Any,
    x: Any,
    kernel: Any,
    bias: Any,
    activation: Activation,
) -> Any:
    y = activation(convolve(convolution, layer, x, kernel) + bias)
    return y if len(x.shape) == 4 else ops.squeeze(y, 2)


def _transpose(layer: Any, x: Any, kernel: Any, bias: Any, activation: Activation) -> Any:
    options = (layer.strides, layer.dilation_rate, layer.output_padding)
    if len(x.shape) == 4:
        return activation(_transposed(layer, x, kernel, *options) + bias)
    strides, dilation, padding = options
    wide = None if padding is None else (*_tuple(padding), 0)
    options = ((*_tuple(strides), 1), (*_tuple(dilation), 1), wide)
    y = _transposed(layer, ops.expand_dims(x, 2), kernel[:, None], *options)
    return ops.squeeze(activation(y + bias), 2)


def _transposed(
    layer: Any, x: Any, kernel: Any, strides: Any, dilation: Any, output_padding: Any
) -> Any:
    return ops.conv_transpose(
        x,
        kernel,
        strides=_tuple(strides),
        padding=layer.padding,
        output_padding=output_padding,
        dilation_rate=dilation,
    )


def _tuple(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (int(value),)


def _causal(layer: Any, x: Any) -> tuple[Any, str]:
    if layer.padding != "causal":
        return x, layer.padding
    before = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
    return ops.pad(x, [(0, 0), (before, 0), (0, 0)]), "valid"


def _square(value: Any) -> tuple[int, int]:
    """Repeat the number for the axis of length one: some kernels support squares only."""
    number = value[0] if isinstance(value, list | tuple) else value
    return int(number), int(number)


_convolve = functools.partial(_convolution, ops.conv)
_convolve_depthwise = functools.partial(_convolution, ops.depthwise_conv)

_COMPUTE: dict[type, Callable[..., Any]] = {
    layers.Dense: _dense,
    layers.EinsumDense: _einsum,
    layers.Conv1D: _convolve,
    layers.Conv2D: _convolve,
    layers.DepthwiseConv1D: _convolve_depthwise,
    layers.DepthwiseConv2D: _convolve_depthwise,
    layers.Conv1DTranspose: _transpose,
    layers.Conv2DTranspose: _transpose,
}
