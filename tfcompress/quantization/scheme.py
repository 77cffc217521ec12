"""`Int8Scheme`: how `quantize_aware` quantizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

__all__ = ["LEARNED", "MOVING_AVERAGE", "RANGES", "Int8Scheme"]

MOVING_AVERAGE = "moving_average"
LEARNED = "learned"
RANGES = (MOVING_AVERAGE, LEARNED)


@dataclass(frozen=True)
class Int8Scheme:
    """Int8 as TFLite has it: weights symmetric per output channel, activations per tensor.

    >>> Int8Scheme(ranges="learned").weight_bits
    8

    Args:
        ranges: Where the ranges of activations come from: "moving_average" of the training
            batches' lowest and highest values, or "learned" by gradient together with a largest
            weight per channel (LSQ). Defaults to "moving_average".
        momentum: Share of the old range that a training step keeps. Defaults to 0.99.
        symmetric_activations: Whether the zero points of activations are 0, for accelerators that
            want that, at the price of half the steps after a ReLU. Defaults to False.

    Raises:
        ValueError: A value is out of bounds.

    Reference:
        https://ai.google.dev/edge/litert/models/quantization_spec; Jacob et al. 2018,
        https://arxiv.org/abs/1712.05877; Esser et al. 2020, https://arxiv.org/abs/1902.08153
    """

    ranges: str = MOVING_AVERAGE
    momentum: float = 0.99
    symmetric_activations: bool = False

    name: ClassVar[str] = "int8"
    weight_bits: ClassVar[int] = 8
    activation_bits: ClassVar[int] = 8

    def __post_init__(self) -> None:
        if self.ranges not in RANGES:
            raise ValueError(f"ranges must be one of {RANGES}. Received: ranges={self.ranges!r}")
        if not 0.0 <= self.momentum < 1.0:
            raise ValueError(
                f"momentum must be from 0 up to, not including, 1. Received: {self.momentum!r}"
            )
