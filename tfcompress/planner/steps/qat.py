"""Quantization-aware training: where int8 after training loses more than is allowed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from tfcompress.quantization.calibrate import calibrate
from tfcompress.quantization.quantize import quantize_aware

from .base import ChangeStep, register_step


@register_step
@dataclass(frozen=True)
class QuantizationAware(ChangeStep):
    """Train once more as the int8 file will compute."""

    name: ClassVar[str] = "quantization_aware"
    order: ClassVar[int] = 3
    finishes: ClassVar[bool] = True

    def label(self) -> str:
        """Return its name."""
        return "quantization-aware"

    def finish(self, model: keras.Model, samples: Any) -> keras.Model:
        """Return the model that computes as its int8 file will."""
        return calibrate(quantize_aware(model), samples)

    def finish_code(self) -> str:
        """Return the calls."""
        return "small = tfc.calibrate(tfc.quantize_aware(small), samples)"
