"""Quantization numerics in float: rounding to integer grids, with straight-through gradients.

All functions take the bit width as an argument, 8 by default.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

__all__ = [
    "activation_steps",
    "fake_quant",
    "fake_quant_kernel",
    "fake_quant_learned",
    "kept_float",
    "nudged",
    "round_bias",
    "signed_unit_range",
    "step_size",
    "symmetric_range",
    "unit_range",
    "weight_steps",
]


def activation_steps(bits: int = 8) -> int:
    """Return the number of steps from the lowest to the highest quantized activation: 2^bits - 1.

    >>> activation_steps()
    255
    """
    return int(2**bits - 1)


def weight_steps(bits: int = 8) -> int:
    """Return the number of steps from zero to the largest quantized weight: 2^(bits - 1) - 1.

    The range of weights is narrow: of int8 it is -127 to 127, without -128.

    >>> weight_steps()
    127
    """
    return int(2 ** (bits - 1) - 1)


def unit_range(bits: int = 8) -> tuple[float, float]:
    """Return the range from 0 to one step below 1, which TFLite prescribes for sigmoid and softmax.

    >>> unit_range() == (0.0, 255 / 256)
    True
    """
    return 0.0, activation_steps(bits) / (activation_steps(bits) + 1)


def signed_unit_range(bits: int = 8) -> tuple[float, float]:
    """Return the range from -1 to one step below 1, which TFLite prescribes for tanh.

    >>> signed_unit_range() == (-1.0, 127 / 128)
    True
    """
    return -1.0, weight_steps(bits) / (weight_steps(bits) + 1)


def fake_quant(x: Any, low: Any, high: Any, bits: int = 8) -> Any:
    """Round to the values of an integer tensor whose range is `low` to `high`: 256 for int8.

    Asymmetric, per tensor, with n = 2^bits - 1: scale s = (high - low) / n, zero point
    z = round(-low / s), and s * (clip(round(x / s) + z, 0, n) - z). The range is widened to hold
    zero, and moved by less than a step so that zero is exact. The gradient is one inside the range
    and zero outside (the straight-through estimator with clipping); outside, it flows to `low` or
    `high`.

    >>> rounded = fake_quant(tf.constant([-9.0, 0.3, 0.5]), -1.0, 1.55)
    >>> rounded.numpy().astype(float).round(3).tolist()
    [-1.0, 0.3, 0.5]

    Args:
        x: Float tensor of any shape. Half precision is computed in float32.
        low: Lowest value, a float scalar.
        high: Highest value, a float scalar.
        bits: Bit width, from 2 to 16. Defaults to 8.

    Returns:
        Tensor of the shape and dtype of `x`.

    Reference:
        Jacob et al. 2018, sections 2.1 and 3, https://arxiv.org/abs/1712.05877; the TFLite
        quantization specification, https://ai.google.dev/edge/litert/models/quantization_spec
    """
    low, high = tf.minimum(low, 0.0), tf.maximum(high, 0.0)
    lowest, highest = (tf.stop_gradient(bound) for bound in _nudge(low, high, bits))
    low, high = lowest + _gradient_of(low), highest + _gradient_of(high)
    wide = tf.cast(x, tf.float32)
    rounded = tf.quantization.fake_quant_with_min_max_vars(wide, low, high, num_bits=bits)
    return tf.cast(rounded, x.dtype)


def fake_quant_learned(x: Any, low: Any, high: Any, bits: int = 8) -> Any:
    """Round as `fake_quant` does, with the gradient of LSQ for the range.

    The gradient of the scale counts the rounding errors inside the range too, not only what was
    clipped: for v = x / s it is round(v) - v inside, and the bound outside. Both gradients of the
    range are multiplied by 1 / sqrt((2^bits - 1) * size of x), in proportion to those of weights.

    >>> with tf.GradientTape() as tape:
    ...     x, high = tf.constant([0.2, 5.0]), tf.Variable(2.55)
    ...     y = fake_quant_learned(x, 0.0, high)
    >>> y.numpy().astype(float).round(3).tolist(), bool(tape.gradient(y, high) > 0)
    ([0.2, 2.55], True)

    Args:
        x: Float tensor of any shape. Half precision is computed in float32.
        low: Lowest value, a float scalar; it may be trainable.
        high: Highest value, a float scalar; it may be trainable.
        bits: Bit width, from 2 to 16. Defaults to 8.

    Returns:
        Tensor of the shape and dtype of `x`.

    Reference:
        Esser et al. 2020, https://arxiv.org/abs/1902.08153; with an offset, Bhalgat et al. 2020,
        https://arxiv.org/abs/2004.09576
    """
    count = activation_steps(bits)
    wide = tf.cast(x, tf.float32)
    size = tf.cast(tf.size(wide), tf.float32)
    damping = tf.math.rsqrt(count * tf.maximum(size, 1.0))
    low = _scale_gradient(tf.minimum(low, 0.0), damping)
    high = _scale_gradient(tf.maximum(high, 0.0), damping)
    scale = step_size(low, high, bits)
    # The zero point is rounded, and its gradient passes too: low acts through it.
    offset = tf.clip_by_value(-low / scale, 0.0, float(count))
    zero_point = tf.stop_gradient(tf.floor(offset + 0.5)) + _gradient_of(offset)
    steps = _round(_clip(wide / scale + zero_point, 0.0, count))
    return tf.cast((steps - zero_point) * scale, x.dtype)


def fake_quant_kernel(kernel: Any, axes: tuple[int, ...], limit: Any = None, bits: int = 8) -> Any:
    """Round weights to the values of an integer kernel, symmetric, with a scale per channel.

    With n = 2^(bits - 1) - 1, 127 for int8: s = max|w| / n over all axes but the channel's, and
    s * round(w / s). Zeros stay zeros. The gradient is one. With a learned `limit` t, the scale is
    min(t, max|w|) / n; weights beyond it are clipped and pass no gradient, and the limit gets the
    gradient of LSQ.

    >>> kernel = tf.constant([[1.27, 0.014], [0.512, 0.0]])
    >>> fake_quant_kernel(kernel, (0,)).numpy().astype(float).round(3).tolist()
    [[1.27, 0.01], [0.512, 0.0]]

    Args:
        kernel: Float tensor of any shape. Half precision is computed in float32.
        axes: Axes of the output channels; the other axes share a scale. Empty: one scale in all.
        limit: Largest weight per channel, a float tensor that broadcasts to the kernel's shape.
            Defaults to None: the largest weight that there is.
        bits: Bit width, from 2 to 16. Defaults to 8.

    Returns:
        Tensor of the shape and dtype of `kernel`.

    Reference:
        Jacob et al. 2018, https://arxiv.org/abs/1712.05877; Esser et al. 2020,
        https://arxiv.org/abs/1902.08153
    """
    steps = weight_steps(bits)
    wide = tf.cast(kernel, tf.float32)
    shared = [axis for axis in range(len(wide.shape)) if axis not in axes]
    largest = tf.stop_gradient(tf.reduce_max(tf.abs(wide), axis=shared, keepdims=True))
    if limit is None:
        scale = largest / steps
        rounded = tf.round(tf.math.divide_no_nan(wide, scale)) * scale
        return tf.cast(tf.stop_gradient(rounded) + _gradient_of(wide), kernel.dtype)
    count = float(np.prod([wide.shape[axis] for axis in shared]))
    limit = _scale_gradient(tf.abs(limit), (count * steps) ** -0.5)
    scale = tf.maximum(tf.minimum(limit, largest), _TINY) / steps
    return tf.cast(_round(_clip(wide / scale, -steps, steps)) * scale, kernel.dtype)


def symmetric_range(low: Any, high: Any, bits: int = 8) -> tuple[Any, Any]:
    """Return the range around both bounds whose zero point is the integer 0.

    For int8 it goes from -128 to 127 steps.

    >>> [round(float(bound), 3) for bound in symmetric_range(-1.0, 0.5)]
    [-1.008, 1.0]
    """
    largest = tf.maximum(tf.maximum(-low, high), 0.0)
    largest = tf.where(largest > _TINY, largest, 1.0)
    return -largest * (weight_steps(bits) + 1) / weight_steps(bits), largest


def nudged(low: float, high: float, bits: int = 8) -> tuple[float, float]:
    """Return the range that `fake_quant` really uses: with zero in it, on a step.

    >>> low, high = nudged(-1.0, 1.0)
    >>> round(low, 4), round(high, 4)
    (-0.9966, 1.0044)
    """
    with tf.init_scope():
        bounds = _nudge(tf.constant(low, tf.float32), tf.constant(high, tf.float32), bits)
        return float(bounds[0].numpy()), float(bounds[1].numpy())


def round_bias(bias: Any, step: Any, largest: Any, bits: int = 8) -> Any:
    """Round a bias as TFLite does: to whole products of an input step and a weight step.

    In the file it is an int32 whose scale is the input's times the kernel's. That is much finer
    than an output step, but it often decides to which side an output is rounded.

    >>> rounded = round_bias(tf.constant([0.0123]), 0.1, tf.constant([1.27]))
    >>> rounded.numpy().astype(float).round(4).tolist()
    [0.012]

    Args:
        bias: Float32 tensor (channels,).
        step: Distance between neighbouring values of the input, a float scalar. Nothing is rounded
            if it is None or 0, because it is not known.
        largest: Largest absolute weight of each channel, a float32 tensor (channels,).
        bits: Bit width of the weights. Defaults to 8.

    Returns:
        Tensor of the shape of `bias`.

    Reference:
        https://ai.google.dev/edge/litert/models/quantization_spec
    """
    if step is None:
        return bias
    scale = step * largest / weight_steps(bits)
    # Where weights are zero, or all but, there is no such grid.
    fine = scale > _TINY
    return tf.where(fine, _round(bias / tf.where(fine, scale, 1.0)) * scale, bias)


def kept_float(x: Any) -> Any:
    """Return a tensor of an exported graph such that the op that makes it stays in float.

    The converter makes an op int8 when both its ends are; no int8 tensor passes a cast.
    """
    return tf.cast(tf.cast(x, tf.float64), x.dtype)


def step_size(low: Any, high: Any, bits: int = 8) -> Any:
    """Return the distance between neighbouring values that `fake_quant` gives.

    It is (high - low) / (2^bits - 1). A range without width, of a tensor that was zero throughout,
    counts as 0 to 1: no file can hold a step of zero. Only in a range like -1 to 1,
    where zero would lie midway between two steps, it is a 2048th more. Otherwise all pixels that
    are scaled to that range would lie midway too, and runtimes round them one way or the other.

    >>> round(float(step_size(0.0, 2.55)), 4), round(float(step_size(-127.5, 127.5)), 4)
    (0.01, 1.0005)

    Args:
        low: Lowest value, a float scalar.
        high: Highest value, a float scalar.
        bits: Bit width, from 2 to 16. Defaults to 8.

    Returns:
        A float scalar.
    """
    low, high = tf.minimum(low, 0.0), tf.maximum(high, 0.0)
    width = high - low
    scale = tf.where(width > _TINY, width, 1.0) / activation_steps(bits)
    steps = tf.math.divide_no_nan(-low, scale)
    midway = tf.abs(steps - tf.floor(steps) - 0.5) < _MIDWAY
    return tf.where(midway, scale * (1.0 + 2.0**-11), scale)


_TINY = 1e-12
_MIDWAY = 0.01


def _nudge(low: Any, high: Any, bits: int) -> tuple[Any, Any]:
    """Return the range moved so that zero is on a step."""
    scale = step_size(low, high, bits)
    zero_point = tf.floor(tf.math.divide_no_nan(-tf.minimum(low, 0.0), scale) + 0.5)
    return -zero_point * scale, (activation_steps(bits) - zero_point) * scale


def _round(x: Any) -> Any:
    return tf.stop_gradient(tf.round(x)) + _gradient_of(x)


def _clip(steps: Any, low: float, high: float) -> Any:
    """Clip, with the bounds themselves inside, where a range begins: float32 is off by 3e-5."""
    return tf.clip_by_value(steps, low - 2e-4, high + 2e-4)


def _scale_gradient(x: Any, factor: Any) -> Any:
    """Return `x`, with its gradient multiplied by `factor`."""
    return tf.stop_gradient(x) + factor * _gradient_of(x)


def _gradient_of(x: Any) -> Any:
    """Return exactly zero, with the gradient of `x`."""
    return x - tf.stop_gradient(x)
