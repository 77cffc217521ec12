"""Weights and activations in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import Precision
from .registry import register_precision


@register_precision
@dataclass(frozen=True)
class Float32(Precision):
    """Weights and activations stay float32.

    The reference: the file differs from Keras only by the order in which sums are added up.

    >>> Float32().name
    'float32'
    """

    name: ClassVar[str] = "float32"
    mixes_with: ClassVar[str] = "floats"
