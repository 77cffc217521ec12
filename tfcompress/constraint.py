"""A mask as the constraint of a variable: what the optimizer applies inside the compiled step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np

__all__ = ["MaskConstraint", "attach", "detach", "detach_stale", "owners"]

Constraint: TypeAlias = Callable[[Any], Any]


class MaskConstraint:
    """Zero where the mask is False, after the constraint that was there before.

    It is set on the variable, not on the layer, so it is in no config and in no saved file.

    Args:
        mask: Boolean, non-trainable variable of the shape of the weights.
        inner: The constraint that the variable had, or `None`.
        owner: The callback that changes the mask.
        fit: Any object that is the same throughout one call of `fit` and not in the next.
    """

    def __init__(
        self, mask: keras.Variable, inner: Constraint | None, owner: object, fit: object
    ) -> None:
        self.mask = mask
        self.inner = inner
        self.owner = owner
        self.fit = fit

    def __call__(self, weights: Any) -> Any:
        """The weights, constrained and masked."""
        if self.inner is not None:
            weights = self.inner(weights)
        # Not a product: that would leave -0.0, which is no zero byte in a file, and NaN where a
        # weight is infinite.
        return keras.ops.where(self.mask, weights, keras.ops.zeros_like(weights))


def attach(variable: keras.Variable, model: keras.Model, owner: object, fit: object) -> Any:
    """Put a mask that keeps all on a variable, around its constraint, and return it."""
    with model.distribute_strategy.scope():
        mask = keras.Variable(
            np.ones(variable.shape, bool), dtype="bool", trainable=False, name="mask"
        )
    variable.constraint = MaskConstraint(mask, variable.constraint, owner, fit)
    return variable.constraint


def detach(variable: keras.Variable, constraint: MaskConstraint) -> None:
    """Take a mask off a variable, wherever it is among others, and give back what it wraps."""
    if variable.constraint is constraint:
        variable.constraint = constraint.inner
        return
    for outer in _masks(variable):
        if outer.inner is constraint:
            outer.inner = constraint.inner
            return


def detach_stale(variable: keras.Variable, fit: object) -> None:
    """Take off the masks that an interrupted `fit` left behind."""
    for constraint in _masks(variable):
        if constraint.fit is not fit:
            detach(variable, constraint)


def owners(variable: keras.Variable) -> list[object]:
    """The callbacks whose masks a variable has."""
    return [constraint.owner for constraint in _masks(variable)]


def _masks(variable: keras.Variable) -> list[MaskConstraint]:
    found = []
    constraint = variable.constraint
    while isinstance(constraint, MaskConstraint):
        found.append(constraint)
        constraint = constraint.inner
    return found
