"""Weights in float16, activations in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import ConverterOptions, Precision
from .registry import register_precision


@register_precision
@dataclass(frozen=True)
class Float16(Precision):
    """Weights are rounded to float16, half the bytes; the CPU computes in float32.

    A GPU delegate computes in float16 where the device supports it.

    >>> Float16().name
    'float16'
    """

    name: ClassVar[str] = "float16"

    def converter_options(self) -> ConverterOptions:
        """Return the options for float16 weights."""
        return ConverterOptions(optimizations=("DEFAULT",), supported_types=("float16",))
