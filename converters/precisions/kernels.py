"""How the kernels of a file are rounded, where they are not all alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kernels:
    """Kernels of 4 bits, and which of them keep 8.

    >>> Kernels("gptq").ends
    False

    Attributes:
        rounding: "gptq" or "nearest".
        keep: Filters for the layers that keep 8 bits; None for none.
        ends: Whether the first and the last layer keep 8 bits, unless there is a budget.
        budget: Largest size of the file in bytes; None for no limit.
    """

    rounding: str
    keep: Any = None
    ends: bool = False
    budget: int | None = None
