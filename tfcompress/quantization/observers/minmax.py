"""The true lowest and highest value: what calibration wants."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .base import Observer, extremes, register_observer

__all__ = ["MinMax"]


@register_observer("minmax")
class MinMax(Observer):
    """Widen the range to hold every value.

    >>> low, high = MinMax().update(-1.0, 1.0, tf.constant([0.5, 2.0]), False)
    >>> float(low), float(high)
    (-1.0, 2.0)
    """

    def update(self, low: Any, high: Any, values: Any, first: Any) -> tuple[Any, Any]:
        """Return the range, widened to hold the values."""
        lowest, highest = extremes(values)
        return tf.minimum(low, lowest), tf.maximum(high, highest)
