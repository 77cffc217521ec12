"""Kernels in 4 bits, rounded by GPTQ; activations in int8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tfcompress.converters.precisions.base import Precision
from tfcompress.converters.precisions.int4_weights import Int4Weights

from .base import FileStep, register_step


@register_step
@dataclass(frozen=True)
class Int4WeightsFile(FileStep):
    """Kernels are int4 but in the first and the last layer, all else is int8."""

    name: ClassVar[str] = "int4_weights"
    bits: ClassVar[int] = 4
    needs_samples: ClassVar[bool] = True
    stores_zeros: ClassVar[bool] = False

    def label(self) -> str:
        """Return its name."""
        return "int4 weights"

    def precision(self, samples: Any) -> Precision:
        """Return the precision."""
        return Int4Weights(calibration=samples)

    def code(self) -> str:
        """Return the code of the precision."""
        return "converters.Int4Weights(calibration=samples)"
