"""Rounding of weights to a few bits: to the nearest step, or by GPTQ. Pure NumPy, in child processes.

Kernels are matrices here: a row for each output, a column for each product that is summed up.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_BLOCK = 128
"""Columns whose errors are spread at once. It changes the speed, not the result."""

_DAMPING = 0.01
"""Share of the mean of the Hessian's diagonal that is added to it, as in the paper."""

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


def gptq(weights: Array, hessian: Array, scales: Array, bits: int = 4) -> Array:
    """Return weights as integers, each of which makes up for the errors of those before it.

    With X the inputs of a layer, a row each, the error of its outputs is (w - q)ᵀ H (w - q) for H =
    XᵀX. After a column is rounded, the columns that follow move to where that error is smallest.
    The columns with the largest inputs come first, while all others can still make up for them.
    Frantar et al. 2022, https://arxiv.org/abs/2210.17323

    Args:
        weights: Matrix of float32.
        hessian: XᵀX, float64, with a row and a column for each column of the weights.
        scales: The step of each row.
        bits: Bits of an integer. Defaults to 4.

    Returns:
        Matrix of int8.
    """
    order = np.argsort(-np.diag(hessian), kind="stable")
    spread = _spread(hessian[np.ix_(order, order)])
    left = weights[:, order].astype(np.float64)
    steps, end = scales.astype(np.float64), limit(bits)
    found = np.zeros(left.shape, np.int8)
    for start in range(0, left.shape[1], _BLOCK):
        stop = min(start + _BLOCK, left.shape[1])
        errors = np.zeros((len(left), stop - start))
        for column in range(start, stop):
            integers = np.clip(np.rint(left[:, column] / steps), -end, end)
            found[:, column] = integers
            error = (left[:, column] - integers * steps) / spread[column, column]
            left[:, column:stop] -= np.outer(error, spread[column, column:stop])
            errors[:, column - start] = error
        left[:, stop:] -= errors @ spread[start:stop, stop:]
    return found[:, np.argsort(order)]


def _spread(hessian: Array) -> Array:
    """Return the upper Cholesky factor of the inverse of a damped Hessian."""
    damped = hessian.astype(np.float64)
    diagonal = np.einsum("ii->i", damped)
    mean = float(diagonal.mean())
    # A column whose inputs are always zero is rounded by itself.
    diagonal += _DAMPING * mean if mean > 0 else 1.0
    return np.linalg.cholesky(np.linalg.inv(damped)).T
