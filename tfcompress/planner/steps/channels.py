"""Fewer channels: smaller and faster on every device, once it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import keras

from tfcompress.channels.prune import prune_channels
from tfcompress.cost import budgets

from .base import ChangeStep, register_step

_ROUND_TO = 4
_MACS = (0.7, 0.5, 0.35, 0.25, 0.17, 0.12)


@register_step
@dataclass(frozen=True)
class Channels(ChangeStep):
    """Cut the least important channels, down to a share of the multiply-accumulates.

    Args:
        macs: Share of the multiply-accumulates that is left.
    """

    macs: float

    name: ClassVar[str] = "channels"
    order: ClassVar[int] = 0

    @classmethod
    def choices(cls) -> tuple[Channels, ...]:
        """Return one for each share."""
        return tuple(map(cls, _MACS))

    def left(self) -> float:
        """Return the share: weights go about as multiply-accumulates do."""
        return self.macs

    def label(self) -> str:
        """Return what is left."""
        return f"channels to {self.macs:.0%} of the MACs"

    def rewrite(self, model: keras.Model) -> keras.Model:
        """Return the model without these channels."""
        return prune_channels(model, budgets.Macs(self.macs), round_to=_ROUND_TO)

    def code(self) -> str:
        """Return the call."""
        budget = f"tfc.budgets.Macs({self.macs})"
        return f"small = tfc.prune_channels(small, {budget}, round_to={_ROUND_TO})"
