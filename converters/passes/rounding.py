"""Weights -> integers of a few bits, and their steps. Pure NumPy, in child processes.

Kernels are matrices here: a row for each output, a column for each product that is summed up.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_SHARES = np.linspace(1.0, 0.5, 41)
"""Shares of the largest weight that are tried as the end of a range."""


def limit(bits: int) -> int:
    """Return the largest integer of symmetric weights: 7 for 4 bits.

    >>> limit(4), limit(8)
    (7, 127)
    """
    return int(2 ** (bits - 1) - 1)


def largest_scales(weights: Array, bits: int = 4) -> Array:
    """Return a step for each row, with which its largest weight is the largest integer.

    >>> largest_scales(np.float32([[7.0, -3.5], [0.0, 0.0]])).tolist()
    [1.0, 1.0]

    Args:
        weights: Matrix of float32.
        bits: Bits of an integer. Defaults to 4.

    Returns:
        Vector of float32; 1 for a row of zeros.
    """
    scales = (np.abs(weights).max(axis=1) / limit(bits)).astype(np.float32)
    return np.where(scales > 0, scales, np.float32(1))


def best_scales(weights: Array, importance: Array, bits: int = 4) -> Array:
    """Return a step for each row with which the squared error of rounding is smallest.

    A smaller step clips the largest weights and rounds the others more finely.

    Args:
        weights: Matrix of float32.
        importance: How much the squared error of each column counts: the diagonal of the Hessian.
        bits: Bits of an integer. Defaults to 4.

    Returns:
        Vector of float32.
    """
    largest = largest_scales(weights, bits)
    best, least = largest, np.full(len(weights), np.inf)
    for share in _SHARES:
        scales = (largest * share).astype(np.float32)
        error = weights - nearest(weights, scales, bits) * scales[:, None]
        squared = (error**2) @ importance
        best = np.where(squared < least, scales, best)
        least = np.minimum(squared, least)
    return best


def nearest(weights: Array, scales: Array, bits: int = 4) -> Array:
    """Return weights as the nearest integers.

    >>> nearest(np.float32([[1.0, -0.4, 9.0]]), np.float32([0.5])).tolist()
    [[2, -1, 7]]

    Args:
        weights: Matrix of float32.
        scales: The step of each row.
        bits: Bits of an integer. Defaults to 4.

    Returns:
        Matrix of int8.
    """
    end = limit(bits)
    return np.clip(np.rint(weights / scales[:, None]), -end, end).astype(np.int8)
