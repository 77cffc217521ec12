"""What a callback holds weights to, as a constraint of their variable: masks, and what they share.

The optimizer applies constraints inside its compiled step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np

__all__ = [
    "Constraint",
    "FitConstraint",
    "MaskConstraint",
    "attach",
    "detach",
    "detach_stale",
    "masks",
    "owners",
]

Constraint: TypeAlias = Callable[[Any], Any]


class FitConstraint:
    """A constraint that a callback puts on a variable for one `fit`, around what was there before.

    It is set on the variable, not on the layer, so it is in no config and in no saved file.

    Args:
        inner: The constraint that the variable had, or `None`.
        owner: The callback.
        fit: Any object that is the same throughout one call of `fit` and not in the next.
    """

    def __init__(self, inner: Constraint | None, owner: object, fit: object) -> None:
        self.inner = inner
        self.owner = owner
        self.fit = fit

    def __call__(self, weights: Any) -> Any:
        """The weights as they must be."""
        return self._apply(weights if self.inner is None else self.inner(weights))

    def _apply(self, weights: Any) -> Any:
        """The same, given weights that the inner constraint has seen to."""
        raise NotImplementedError


class MaskConstraint(FitConstraint):
    """Zero where the mask is False.

    Args:
        mask: Boolean, non-trainable variable of the shape of the weights.
        inner: As in `FitConstraint`.
        owner: Likewise; the callback changes the mask.
        fit: Likewise.
    """

    def __init__(
        self, mask: keras.Variable, inner: Constraint | None, owner: object, fit: object
    ) -> None:
        super().__init__(inner, owner, fit)
        self.mask = mask

    def _apply(self, weights: Any) -> Any:
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


def detach(variable: keras.Variable, owner: object) -> None:
    """Take off what a callback put on a variable, and give back what that wraps."""
    variable.constraint = _without(variable.constraint, lambda held: held.owner is owner)


def detach_stale(variable: keras.Variable, fit: object) -> None:
    """Take off what an interrupted `fit` left behind."""
    variable.constraint = _without(variable.constraint, lambda held: held.fit is not fit)


def masks(constraint: Constraint | None) -> list[MaskConstraint]:
    """The masks in a constraint and those within it."""
    found = []
    while isinstance(constraint, FitConstraint):
        if isinstance(constraint, MaskConstraint):
            found.append(constraint)
        constraint = constraint.inner
    return found


def owners(variable: keras.Variable) -> list[object]:
    """The callbacks whose masks a variable has."""
    return [mask.owner for mask in masks(variable.constraint)]


def _without(constraint: Any, unwanted: Callable[[FitConstraint], bool]) -> Any:
    if not isinstance(constraint, FitConstraint):
        return constraint
    constraint.inner = _without(constraint.inner, unwanted)
    return constraint.inner if unwanted(constraint) else constraint
