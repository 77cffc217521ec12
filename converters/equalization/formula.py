"""By how much to scale each channel: NumPy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["largest_by_unit", "relative_weights", "smooth_factors", "unevenness"]

Array = npt.NDArray[np.float64]

LEAST = 1e-4
"""The smallest share of the largest channel that a channel counts as.

Some samples do not tell how large a fainter one gets: scaled up to the others, it may be cut off.
"""


def smooth_factors(activations: Array, weights: Array, alpha: float) -> Array:
    """Return what to multiply channels by: `weights ** (1 - alpha) / activations ** alpha`.

    That is one over the scale of SmoothQuant. The largest channel keeps its largest value, so that
    all factors stand in one proportion to those of other tensors.

    >>> smooth_factors(np.array([1.0, 4.0]), np.array([1.0, 1.0]), alpha=0.5)
    array([2., 1.])

    Args:
        activations: Largest absolute value of each channel, shape `(channels,)`. A channel that is
            0 on all samples counts as the largest.
        weights: Largest absolute weight that reads each channel, as a share of the largest of its
            output, shape `(channels,)`. A channel that no weight reads counts as the largest.
        alpha: How much of the unevenness moves into the weights, from 0 to 1.

    Returns:
        Array of shape `(channels,)`, all above 0.

    Reference:
        Xiao et al., "SmoothQuant", https://arxiv.org/abs/2211.10438, equation 4.
    """
    a, w = _filled(activations), _filled(weights)
    factors = w ** (1 - alpha) / a**alpha
    return np.asarray(factors * (a.max(initial=0.0) / (a * factors).max(initial=0.0)))


def _filled(values: Array) -> Array:
    largest = values.max(initial=0.0) or 1.0
    return np.where(values > 0, np.maximum(values, LEAST * largest), largest)


def relative_weights(kernel: Array, outputs: tuple[int, ...]) -> Array:
    """Return absolute weights as shares of the largest of their output.

    The weights of each output have a scale of their own in the file, so a share is what rounding
    sees of a weight.

    >>> relative_weights(np.array([[2.0, -30.0], [-1.0, 30.0]]), (1,))
    array([[1. , 1. ],
           [0.5, 1. ]])

    Args:
        kernel: Weights, any shape.
        outputs: Axes that run over the outputs.

    Returns:
        Array of the kernel's shape, from 0 to 1.
    """
    size = np.abs(kernel)
    others = tuple(axis for axis in range(kernel.ndim) if axis not in outputs)
    largest = size.max(axis=others, keepdims=True, initial=0.0)
    return np.asarray(np.divide(size, largest, out=np.zeros_like(size), where=largest > 0))


def largest_by_unit(ids: npt.NDArray[np.int64], values: Any, size: int) -> Array:
    """Return the largest value of each unit.

    >>> largest_by_unit(np.array([0, 2, 2]), np.array([1.0, 5.0, 3.0]), size=3)
    array([1., 0., 5.])

    Args:
        ids: Units, of a shape that can be broadcast to that of `values`.
        values: Numbers of at least 0, any shape.
        size: Number of units.

    Returns:
        Array of shape `(size,)`; 0 for a unit without a value.
    """
    found = np.zeros(size)
    np.maximum.at(found, np.broadcast_to(ids, np.shape(values)).ravel(), np.ravel(values))
    return found


def unevenness(activations: Array) -> float:
    """Return how often the median channel fits into the largest one: 1 if all are as large.

    >>> unevenness(np.array([1.0, 2.0, 8.0]))
    4.0

    Args:
        activations: Largest absolute value of each channel, shape `(channels,)`.

    Returns:
        A number of at least 1. Channels that are always 0 do not count.
    """
    used = activations[activations > 0]
    return float(used.max() / np.median(used)) if used.size else 1.0
