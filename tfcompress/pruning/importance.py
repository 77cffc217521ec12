"""Score single weights; the lowest are pruned first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Importance", "magnitude"]

Importance: TypeAlias = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
"""Weights in, scores of the same shape out; the lowest scores are pruned first."""


def magnitude(weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Score each weight by its absolute value.

    >>> magnitude(np.array([-2.0, 0.5]))
    array([2. , 0.5])

    Args:
        weights: Array of floats of any shape.

    Returns:
        Array of the same shape and dtype.

    Reference:
        Han et al., "Learning both Weights and Connections", https://arxiv.org/abs/1506.02626.
    """
    scores: npt.NDArray[Any] = np.abs(weights)
    return scores
