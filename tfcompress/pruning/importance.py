"""Score single weights; the lowest are pruned first.

To add a score, register a function:

    @importance.register("squares")
    def squares(weights):
        return np.square(weights)

`prune_weights(importance="squares")` and `Prune(importance="squares")` then find it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tfcompress.edge.arguments import check_function, refuse
from tfcompress.model.registry import Registry

__all__ = ["IMPORTANCES", "Importance", "get", "magnitude", "register"]

Importance: TypeAlias = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
"""Weights in, scores of the same shape out; the lowest scores are pruned first."""

IMPORTANCES: Registry[Importance] = Registry("importance of weights")
"""Every importance of weights by name."""

register = IMPORTANCES.register


def get(importance: str | Importance) -> Importance:
    """Return an importance by name, or a function as it is.

    >>> get("magnitude") is magnitude
    True

    Args:
        importance: Name of a registered importance, or a function from weights to scores.

    Returns:
        A function from weights to scores.

    Raises:
        TypeError: If it is neither a name nor a function.
        ValueError: If no importance of this name is registered.
    """
    if isinstance(importance, str):
        return IMPORTANCES.get(importance)
    if not callable(importance):
        refuse("importance", "a name or a function from weights to scores", importance, TypeError)
    return check_function("importance", importance, "weights")


@register("magnitude")
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
