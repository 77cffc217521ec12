"""Weights in float16, activations in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tfcompress.converters.passes.base import Pass

from .base import Precision
from .registry import register_precision


@register_precision
@dataclass(frozen=True)
class Float16(Precision):
    """Weights are rounded to float16, half the bytes; the CPU computes in float32.

    A GPU delegate computes in float16 where the device supports it. Constants that float16 does not
    hold, such as the mean 101325 of a pressure in pascal, stay in float32.

    >>> Float16().name
    'float16'
    """

    name: ClassVar[str] = "float16"

    def passes(self) -> tuple[Pass, ...]:
        """Return the pass that rounds the weights of the float32 file."""
        return (Pass("float16"),)
