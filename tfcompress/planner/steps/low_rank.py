"""Kernels of low rank: for dense layers and wide convolutions with much to spare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import keras

from tfcompress.cost import budgets
from tfcompress.low_rank.factorize import factorize

from .base import ChangeStep, register_step

_PARAMETERS = (0.5, 0.25)


@register_step
@dataclass(frozen=True)
class LowRank(ChangeStep):
    """Replace kernels by products of smaller ones, down to a share of the parameters.

    Args:
        parameters: Share of the parameters that is left.
    """

    parameters: float

    name: ClassVar[str] = "low_rank"
    order: ClassVar[int] = 1

    @classmethod
    def choices(cls) -> tuple[LowRank, ...]:
        """Return one for each share."""
        return tuple(map(cls, _PARAMETERS))

    def left(self) -> float:
        """Return the share."""
        return self.parameters

    def label(self) -> str:
        """Return what is left."""
        return f"low rank, {self.parameters:.0%} of the weights"

    def rewrite(self, model: keras.Model) -> keras.Model:
        """Return the model with kernels of low rank."""
        return factorize(model, budgets.Parameters(self.parameters))

    def code(self) -> str:
        """Return the call."""
        return f"small = tfc.factorize(small, tfc.budgets.Parameters({self.parameters}))"
