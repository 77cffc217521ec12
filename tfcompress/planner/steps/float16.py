"""Weights in half precision: half the bytes, next to no loss, no samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tfcompress.converters.precisions.base import Precision
from tfcompress.converters.precisions.float16 import Float16

from .base import FileStep, register_step


@register_step
@dataclass(frozen=True)
class Float16File(FileStep):
    """Weights are float16, and computed with in float32."""

    name: ClassVar[str] = "float16"
    bits: ClassVar[int] = 16

    def label(self) -> str:
        """Return its name."""
        return "float16"

    def precision(self, samples: Any) -> Precision:
        """Return the precision."""
        return Float16()

    def code(self) -> str:
        """Return the code of the precision."""
        return "converters.Float16()"
