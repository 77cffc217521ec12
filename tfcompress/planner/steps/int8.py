"""Weights and activations in int8, with ranges of the smallest squared error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tfcompress.converters.precisions.base import Precision
from tfcompress.converters.precisions.int8 import Int8

from .base import FileStep, register_step


@register_step
@dataclass(frozen=True)
class Int8File(FileStep):
    """All is int8, with ranges from samples."""

    name: ClassVar[str] = "int8"
    bits: ClassVar[int] = 8
    needs_samples: ClassVar[bool] = True

    def label(self) -> str:
        """Return its name."""
        return "int8"

    def precision(self, samples: Any) -> Precision:
        """Return the precision."""
        return Int8(calibration=samples)

    def code(self) -> str:
        """Return the code of the precision."""
        return "converters.Int8(calibration=samples)"
