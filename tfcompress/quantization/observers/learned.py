"""Ranges that the optimizer learns (LSQ)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .base import Observer, extremes, register_observer

__all__ = ["Learned"]


@register_observer("learned")
class Learned(Observer):
    """Start from the extremes of the first batch; from there on the optimizer moves the range.

    >>> low, high = Learned().update(-1.0, 1.0, tf.constant([0.5, 3.0]), tf.constant(False))
    >>> float(low), float(high)
    (-1.0, 1.0)

    Reference:
        Esser et al. 2020, https://arxiv.org/abs/1902.08153; Bhalgat et al. 2020,
        https://arxiv.org/abs/2004.09576
    """

    trainable = True
    calibration = "minmax"

    def update(self, low: Any, high: Any, values: Any, first: Any) -> tuple[Any, Any]:
        """Return the extremes of the values if they are the first, else the range as it is."""
        # `cond`, so that later steps do not pay for the extremes.
        bounds: tuple[Any, Any] = tf.cond(
            tf.convert_to_tensor(first),
            lambda: extremes(values),
            lambda: (tf.convert_to_tensor(low), tf.convert_to_tensor(high)),
        )
        return bounds
