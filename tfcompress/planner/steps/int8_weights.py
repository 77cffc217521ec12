"""Weights in int8, computed with in float32: for nets whose activations do not bear int8.

With zeros it is the smallest file of all, and no faster than float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tfcompress.converters.precisions.base import Precision
from tfcompress.converters.precisions.float32 import Float32
from tfcompress.converters.sparse import Sparse

from .base import FileStep, register_step


@register_step
@dataclass(frozen=True)
class Int8WeightsFile(FileStep):
    """Weights are stored as int8, and are float32 once the file is loaded."""

    name: ClassVar[str] = "int8_weights"
    bits: ClassVar[int] = 8
    rescues: ClassVar[bool] = True

    def label(self) -> str:
        """Return its name."""
        return "int8 weights in float32"

    def precision(self, samples: Any) -> Precision:
        """Return the precision."""
        return Float32()

    def sparse(self) -> Sparse:
        """Return how weights are stored."""
        return Sparse(int8_weights=True, names=False)

    def code(self) -> str:
        """Return the code of the precision."""
        return "converters.Float32()"
