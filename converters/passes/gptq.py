"""Rounding of weights one after another, each making up for those before it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .int4 import Integers
from .rounding import best_scales, limit

Array = np.ndarray[Any, np.dtype[Any]]

_BLOCK = 128
"""Columns whose errors are spread at once. It changes the speed, not the result."""

_DAMPING = 0.01
"""Share of the mean of the Hessian's diagonal that is added to it, as in the paper."""


def by_inputs(weights: Array, hessian: Array, bits: int = 4, block: int | None = None) -> Integers:
    """Round a kernel by what enters its layer: the best steps, then the integers that go with them.

    Args:
        weights: Matrix of float32.
        hessian: XᵀX, float64, with a row and a column for each column of the weights.
        bits: Bits of an integer. Defaults to 4.
        block: Columns that share a step. Defaults to None, all.

    Returns:
        Integers of the shape of the weights, and a step for each block of each row.
    """
    importance = np.diag(hessian)
    width = block or weights.shape[1]
    blocks = [slice(start, start + width) for start in range(0, weights.shape[1], width)]
    scales = np.stack([best_scales(weights[:, b], importance[b], bits) for b in blocks], axis=1)
    return Integers(gptq(weights, hessian, scales, bits), scales.reshape(-1))


def gptq(weights: Array, hessian: Array, scales: Array, bits: int = 4) -> Array:
    """Return weights as integers that make up for the errors of the integers before them.

    With X the inputs of a layer, a row each, the error of its outputs is (w - q)ᵀ H (w - q) for H =
    XᵀX. After a column is rounded, the columns that follow move to where that error is smallest.
    The columns with the largest inputs come first, while all others can still make up for them.
    Frantar et al. 2022, https://arxiv.org/abs/2210.17323

    Args:
        weights: Matrix of float32.
        hessian: XᵀX, float64, with a row and a column for each column of the weights.
        scales: The step of each row, shape `(rows,)`; or of each block of it, `(rows, blocks)`.
        bits: Bits of an integer. Defaults to 4.

    Returns:
        Matrix of int8.
    """
    blocks = scales.reshape(len(weights), -1).astype(np.float64)
    order = np.argsort(-np.diag(hessian), kind="stable")
    spread = _spread(hessian[np.ix_(order, order)])
    left = weights[:, order].astype(np.float64)
    steps = np.repeat(blocks, weights.shape[1] // blocks.shape[1], axis=1)[:, order]
    end = limit(bits)
    found = np.zeros(left.shape, np.int8)
    for start in range(0, left.shape[1], _BLOCK):
        stop = min(start + _BLOCK, left.shape[1])
        errors = np.zeros((len(left), stop - start))
        for column in range(start, stop):
            step = steps[:, column]
            integers = np.clip(np.rint(left[:, column] / step), -end, end)
            found[:, column] = integers
            error = (left[:, column] - integers * step) / spread[column, column]
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
