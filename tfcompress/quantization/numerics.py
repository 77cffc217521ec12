"""Fake-quantization: the numerics of int8 in float, with gradients that pass straight through."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

__all__ = [
    "ACTIVATION_STEPS",
    "KERNEL_STEPS",
    "fake_quant",
    "fake_quant_kernel",
    "fake_quant_learned",
    "nudged",
    "round_bias",
    "step_size",
    "symmetric_range",
]

ACTIVATION_STEPS = 255
"""Steps from the lowest to the highest int8 activation."""

KERNEL_STEPS = 127
"""Steps from zero to the largest int8 weight: a narrow range, -127 to 127, has no -128."""


def fake_quant(x: Any, low: Any, high: Any) -> Any:
    """Round to the 256 values of an int8 tensor whose range is `low` to `high`.

    Asymmetric, per tensor: scale s = (high - low) / 255, zero point z = round(-low / s), and
    s * (clip(round(x / s) + z, 0, 255) - z). The range is widened to hold zero, and moved by less
    than a step so that zero is exact. The gradient is one inside the range and zero outside (the
    straight-through estimator with clipping); what falls outside flows to `low` or `high`.

    >>> rounded = fake_quant(tf.constant([-9.0, 0.3, 0.5]), -1.0, 1.55)
    >>> rounded.numpy().astype(float).round(3).tolist()
    [-1.0, 0.3, 0.5]

    Args:
        x: Float tensor of any shape. Half precision is computed in float32.
        low: Lowest value, a scalar.
        high: Highest value, a scalar.

    Returns:
        Tensor like `x`.

    Reference:
        Jacob et al. 2018, sections 2.1 and 3, https://arxiv.org/abs/1712.05877; the TFLite
        quantization specification, https://ai.google.dev/edge/litert/models/quantization_spec
    """
    low, high = tf.minimum(low, 0.0), tf.maximum(high, 0.0)
    lowest, highest = (tf.stop_gradient(bound) for bound in _nudge(low, high))
    low, high = lowest + _gradient_of(low), highest + _gradient_of(high)
    wide = tf.cast(x, tf.float32)
    return tf.cast(tf.quantization.fake_quant_with_min_max_vars(wide, low, high), x.dtype)


def fake_quant_learned(x: Any, low: Any, high: Any) -> Any:
    """As `fake_quant`, with the gradient of LSQ for the range.

    The scale's gradient counts the rounding errors inside the range too, not only what was clipped:
    for v = x / s it is round(v) - v inside, and the bound outside. Both gradients of the range are
    multiplied by 1 / sqrt(255 * size of x), in proportion to those of weights.

    >>> with tf.GradientTape() as tape:
    ...     x, high = tf.constant([0.2, 5.0]), tf.Variable(2.55)
    ...     y = fake_quant_learned(x, 0.0, high)
    >>> y.numpy().astype(float).round(3).tolist(), bool(tape.gradient(y, high) > 0)
    ([0.2, 2.55], True)

    Args:
        x: As for `fake_quant`.
        low: As for `fake_quant`; may be trainable.
        high: As for `fake_quant`; may be trainable.

    Returns:
        Tensor like `x`.

    Reference:
        Esser et al. 2020, https://arxiv.org/abs/1902.08153; with an offset, Bhalgat et al. 2020,
        https://arxiv.org/abs/2004.09576
    """
    wide = tf.cast(x, tf.float32)
    size = tf.cast(tf.size(wide), tf.float32)
    damping = tf.math.rsqrt(ACTIVATION_STEPS * tf.maximum(size, 1.0))
    low = _scale_gradient(tf.minimum(low, 0.0), damping)
    high = _scale_gradient(tf.maximum(high, 0.0), damping)
    scale = tf.maximum(step_size(low, high), _TINY / ACTIVATION_STEPS)
    # The zero point is rounded, and its gradient passes too: low acts through it.
    offset = tf.clip_by_value(-low / scale, 0.0, float(ACTIVATION_STEPS))
    zero_point = tf.stop_gradient(tf.floor(offset + 0.5)) + _gradient_of(offset)
    steps = _round(_clip(wide / scale + zero_point, 0.0, ACTIVATION_STEPS))
    return tf.cast((steps - zero_point) * scale, x.dtype)


def fake_quant_kernel(kernel: Any, axes: tuple[int, ...], limit: Any = None) -> Any:
    """Round weights to the 255 values of an int8 kernel, symmetric, with a scale per channel.

    s = max|w| / 127 over all axes but the channel's, and s * round(w / s). Zeros stay zeros. The
    gradient is one. With a learned `limit` t, the scale is min(t, max|w|) / 127; weights beyond it
    are clipped and pass no gradient, and the limit gets that of LSQ.

    >>> kernel = tf.constant([[1.27, 0.014], [0.512, 0.0]])
    >>> fake_quant_kernel(kernel, (0,)).numpy().astype(float).round(3).tolist()
    [[1.27, 0.01], [0.512, 0.0]]

    Args:
        kernel: Float tensor of any shape. Half precision is computed in float32.
        axes: Those that run over the output channels; others share a scale. Empty: per tensor.
        limit: None, or the largest weight per channel, in a shape that broadcasts to the kernel's.

    Returns:
        Tensor like `kernel`.

    Reference:
        As for `fake_quant` and `fake_quant_learned`.
    """
    wide = tf.cast(kernel, tf.float32)
    shared = [axis for axis in range(len(wide.shape)) if axis not in axes]
    largest = tf.stop_gradient(tf.reduce_max(tf.abs(wide), axis=shared, keepdims=True))
    if limit is None:
        scale = largest / KERNEL_STEPS
        rounded = tf.round(tf.math.divide_no_nan(wide, scale)) * scale
        return tf.cast(tf.stop_gradient(rounded) + _gradient_of(wide), kernel.dtype)
    count = float(np.prod([wide.shape[axis] for axis in shared]))
    limit = _scale_gradient(tf.abs(limit), (count * KERNEL_STEPS) ** -0.5)
    scale = tf.maximum(tf.minimum(limit, largest), _TINY) / KERNEL_STEPS
    steps = _round(_clip(wide / scale, -KERNEL_STEPS, KERNEL_STEPS))
    return tf.cast(steps * scale, kernel.dtype)


def symmetric_range(low: Any, high: Any) -> tuple[Any, Any]:
    """The range around both whose zero point is int8's 0: from -128 to 127 steps.

    >>> [round(float(bound), 3) for bound in symmetric_range(-1.0, 0.5)]
    [-1.008, 1.0]
    """
    largest = tf.maximum(tf.maximum(-low, high), 0.0)
    return -largest * (KERNEL_STEPS + 1) / KERNEL_STEPS, largest


def nudged(low: float, high: float) -> tuple[float, float]:
    """The range that `fake_quant` really uses: with zero in it, on a step.

    >>> low, high = nudged(-1.0, 1.0)
    >>> round(low, 4), round(high, 4)
    (-0.9966, 1.0044)
    """
    with tf.init_scope():
        bounds = _nudge(tf.constant(low, tf.float32), tf.constant(high, tf.float32))
        return float(bounds[0].numpy()), float(bounds[1].numpy())


def round_bias(bias: Any, step: Any, largest: Any) -> Any:
    """Round a bias as TFLite does: to whole products of an input step and a weight step.

    It is an int32 there, whose scale is the input's times the kernel's: much finer than an output
    step, and yet what decides, often enough, to which side an output is rounded.

    >>> rounded = round_bias(tf.constant([0.0123]), 0.1, tf.constant([1.27]))
    >>> rounded.numpy().astype(float).round(4).tolist()
    [0.012]

    Args:
        bias: One per channel.
        step: Of the input; None, if that is not known: nothing is rounded then.
        largest: The largest weight per channel.

    Returns:
        Tensor like `bias`.

    Reference:
        https://ai.google.dev/edge/litert/models/quantization_spec
    """
    if step is None:
        return bias
    scale = step * largest / KERNEL_STEPS
    # Where weights are zero, or all but, there is no such grid.
    fine = scale > _TINY
    return tf.where(fine, _round(bias / tf.where(fine, scale, 1.0)) * scale, bias)


def step_size(low: Any, high: Any) -> Any:
    """The step between the values that `fake_quant` gives.

    (high - low) / 255. Only in a range like -1 to 1, where zero would lie midway between two steps,
    it is a 2048th more: so would all pixels scaled to that range, and runtimes round what lies
    midway one way or the other.

    >>> round(float(step_size(0.0, 2.55)), 4), round(float(step_size(-127.5, 127.5)), 4)
    (0.01, 1.0005)

    Args:
        low: Lowest value, a scalar.
        high: Highest value, a scalar.

    Returns:
        A scalar.
    """
    low, high = tf.minimum(low, 0.0), tf.maximum(high, 0.0)
    scale = (high - low) / ACTIVATION_STEPS
    steps = tf.math.divide_no_nan(-low, scale)
    midway = tf.abs(steps - tf.floor(steps) - 0.5) < _MIDWAY
    return tf.where(midway, scale * (1.0 + 2.0**-11), scale)


_TINY = 1e-12
_MIDWAY = 0.01


def _nudge(low: Any, high: Any) -> tuple[Any, Any]:
    """The range moved so that zero is on a step."""
    scale = step_size(low, high)
    zero_point = tf.floor(tf.math.divide_no_nan(-tf.minimum(low, 0.0), scale) + 0.5)
    return -zero_point * scale, (ACTIVATION_STEPS - zero_point) * scale


def _round(x: Any) -> Any:
    return tf.stop_gradient(tf.round(x)) + _gradient_of(x)


def _clip(steps: Any, low: float, high: float) -> Any:
    """Clip, with the bounds themselves inside, where a range begins: float32 is off by 3e-5."""
    return tf.clip_by_value(steps, low - 2e-4, high + 2e-4)


def _scale_gradient(x: Any, factor: Any) -> Any:
    """`x`, whose gradient is multiplied by `factor`."""
    return tf.stop_gradient(x) + factor * _gradient_of(x)


def _gradient_of(x: Any) -> Any:
    """Exactly zero, with the gradient of `x`."""
    return x - tf.stop_gradient(x)
