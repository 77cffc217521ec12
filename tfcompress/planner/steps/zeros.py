"""Zeros in the kernels, in a pattern that takes few bytes in a sparse file. They save no time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import keras

from tfcompress.pruning.keep_zeros import KeepZeros
from tfcompress.pruning.patterns import SMALL_FILE
from tfcompress.pruning.prune import Prune
from tfcompress.pruning.prune_weights import prune_weights
from tfcompress.pruning.schedules import Polynomial

from .base import ChangeStep, register_step

_SHARES = (0.5, 0.7, 0.8, 0.9)
_RISE = 0.7
"""Share of the first training in which the zeros become more."""


@register_step
@dataclass(frozen=True)
class Zeros(ChangeStep):
    """Prune weights in blocks of four, by one ranking of all kernels, while the model trains.

    Args:
        share: Share of the weights that become zero.
    """

    share: float

    name: ClassVar[str] = "zeros"
    order: ClassVar[int] = 2
    makes_zeros: ClassVar[bool] = True

    @classmethod
    def choices(cls) -> tuple[Zeros, ...]:
        """Return one for each share."""
        return tuple(map(cls, _SHARES))

    def left(self) -> float:
        """Return the share of the others."""
        return 1 - self.share

    def label(self) -> str:
        """Return how many."""
        return f"{self.share:.0%} zeros"

    def preview(self, model: keras.Model) -> None:
        """Prune at once."""
        prune_weights(model, self.share, structure=SMALL_FILE, scope="global")

    def callbacks(self, steps: int, first: bool) -> Sequence[keras.callbacks.Callback]:
        """Return what prunes in the first training, and what keeps the zeros in the others."""
        if not first:
            return (KeepZeros(),)
        end, every = _times(steps)
        schedule = Polynomial(0.0, self.share, begin=0, end=end, frequency=every)
        return (Prune(schedule, structure=SMALL_FILE, scope="global"),)

    def callbacks_code(self, steps: int, first: bool) -> Sequence[str]:
        """Return the callbacks as code."""
        if not first:
            return ("tfc.KeepZeros()",)
        end, every = _times(steps)
        schedule = f"Polynomial(0.0, {self.share}, begin=0, end={end}, frequency={every})"
        options = 'structure=tfc.masks.SMALL_FILE, scope="global"'
        return (f"tfc.Prune(tfc.schedules.{schedule}, {options})",)


def _times(steps: int) -> tuple[int, int]:
    """Return the last step at which weights are pruned, and how many are between two such steps."""
    end = max(1, int(_RISE * steps))
    return end, max(1, end // 20)
