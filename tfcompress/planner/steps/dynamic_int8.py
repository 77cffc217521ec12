"""Weights in int8, activations quantized at run time: no samples, and right for transformers.

int8 of masked attention is bad and slow on XNNPACK; dynamic int8 is neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tfcompress.converters.precisions.base import Precision
from tfcompress.converters.precisions.dynamic_int8 import DynamicInt8

from .base import FileStep, register_step


@register_step
@dataclass(frozen=True)
class DynamicInt8File(FileStep):
    """Weights are int8, activations are quantized in each run."""

    name: ClassVar[str] = "dynamic_int8"
    bits: ClassVar[int] = 8
    stores_zeros: ClassVar[bool] = False

    def label(self) -> str:
        """Return its name."""
        return "dynamic int8"

    def precision(self, samples: Any) -> Precision:
        """Return the precision."""
        return DynamicInt8()

    def code(self) -> str:
        """Return the code of the precision."""
        return "converters.DynamicInt8()"
