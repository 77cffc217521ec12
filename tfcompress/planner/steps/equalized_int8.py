"""int8 after channels were evened out: for nets whose channels have very different sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tfcompress.converters.precisions.base import Precision
from tfcompress.converters.precisions.int8 import Int8

from .base import FileStep, register_step


@register_step
@dataclass(frozen=True)
class EqualizedInt8File(FileStep):
    """All is int8, after scales moved between layers."""

    name: ClassVar[str] = "equalized_int8"
    bits: ClassVar[int] = 8
    rescues: ClassVar[bool] = True
    needs_samples: ClassVar[bool] = True

    def label(self) -> str:
        """Return its name."""
        return "equalized int8"

    def precision(self, samples: Any) -> Precision:
        """Return the precision."""
        return Int8(calibration=samples, equalize=True)

    def code(self) -> str:
        """Return the code of the precision."""
        return "converters.Int8(calibration=samples, equalize=True)"
