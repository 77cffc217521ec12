"""Variable constraints that a callback adds for one `fit`.

The optimizer applies the constraint of a variable inside its compiled step, after each update.
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
    "attach_mask",
    "detach",
    "detach_stale",
    "mask_owners",
    "masks",
]

Constraint: TypeAlias = Callable[[Any], Any]


class FitConstraint:
    """A constraint that a callback puts on a variable for one `fit`, around the previous one.

    It is set on the variable, not on the layer, so it is in no config and in no saved file.

    Args:
        inner: The constraint that the variable had before, or `None`.
        owner: The callback that puts it there.
        fit: An object that is the same throughout one call of `fit` and another one in the next.
    """

    def __init__(self, inner: Constraint | None, owner: object, fit: object) -> None:
        self.inner = inner
        self.owner = owner
        self.fit = fit

    def __call__(self, weights: Any) -> Any:
        """Return the weights after the inner constraint and this one."""
        return self._apply(weights if self.inner is None else self.inner(weights))

    def _apply(self, weights: Any) -> Any:
        """Return the constrained weights, given the result of the inner constraint."""
        raise NotImplementedError


class MaskConstraint(FitConstraint):
    """Set weights to zero where a mask is False.

    Args:
        mask: Boolean, non-trainable variable of the shape of the weights. The callback changes it.
        inner: The constraint that the variable had before, or `None`.
        owner: The callback that puts it there.
        fit: An object that is the same throughout one call of `fit` and another one in the next.
    """

    def __init__(
        self, mask: keras.Variable, inner: Constraint | None, owner: object, fit: object
    ) -> None:
        super().__init__(inner, owner, fit)
        self.mask = mask

    def _apply(self, weights: Any) -> Any:
        # A product would leave -0.0, which is no zero byte in a file, and NaN where a weight is
        # infinite.
        return keras.ops.where(self.mask, weights, keras.ops.zeros_like(weights))


def attach_mask(
    variable: keras.Variable, model: keras.Model, owner: object, fit: object
) -> MaskConstraint:
    """Put a mask that keeps all weights on a variable, around its constraint, and return it."""
    with model.distribute_strategy.scope():
        mask = keras.Variable(
            np.ones(variable.shape, bool), dtype="bool", trainable=False, name="mask"
        )
    constraint = MaskConstraint(mask, variable.constraint, owner, fit)
    variable.constraint = constraint
    return constraint


def detach(variable: keras.Variable, owner: object) -> None:
    """Remove a callback's constraints from a variable, and restore what they wrap."""
    variable.constraint = _without(variable.constraint, lambda found: found.owner is owner)


def detach_stale(variable: keras.Variable, fit: object) -> None:
    """Remove the constraints that an interrupted earlier `fit` left on a variable."""
    variable.constraint = _without(variable.constraint, lambda found: found.fit is not fit)


def masks(constraint: Constraint | None) -> list[MaskConstraint]:
    """Return the masks in a constraint and in those inside it."""
    found = []
    while isinstance(constraint, FitConstraint):
        if isinstance(constraint, MaskConstraint):
            found.append(constraint)
        constraint = constraint.inner
    return found


def mask_owners(variable: keras.Variable) -> list[object]:
    """Return the callbacks that have a mask on a variable."""
    return [mask.owner for mask in masks(variable.constraint)]


def _without(constraint: Any, unwanted: Callable[[FitConstraint], bool]) -> Any:
    if not isinstance(constraint, FitConstraint):
        return constraint
    constraint.inner = _without(constraint.inner, unwanted)
    return constraint.inner if unwanted(constraint) else constraint
