"""The moving average of the extremes of batches: the default in training."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .base import Observer, extremes, register_observer

__all__ = ["MovingAverage"]


@register_observer("moving_average")
class MovingAverage(Observer):
    """Move the range toward the extremes of the batch; the first batch sets it.

    low' = momentum * low + (1 - momentum) * min(batch), and `high` alike. A `calibrate` takes the
    true extremes instead, because an average over few batches depends on their order.

    >>> low, high = MovingAverage(momentum=0.5).update(-1.0, 1.0, tf.constant([0.5, 3.0]), False)
    >>> float(low), float(high)
    (-0.5, 2.0)

    Reference:
        Jacob et al. 2018, section 3.1, https://arxiv.org/abs/1712.05877
    """

    calibration = "minmax"

    def update(self, low: Any, high: Any, values: Any, first: Any) -> tuple[Any, Any]:
        """Return the range, moved toward the extremes of the values."""
        lowest, highest = extremes(values)
        step = tf.where(first, 1.0, 1.0 - self.momentum)
        return low + step * (lowest - low), high + step * (highest - high)
