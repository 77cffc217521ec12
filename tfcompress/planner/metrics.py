"""Metrics on the outputs of a .tflite file: by name, or a function of predictions and targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfcompress.edge.arguments import check_bool, check_choice, check_function, refuse
from tfcompress.model.samples import Array

__all__ = ["METRICS", "Metric", "check_metric", "constant"]

Predictions = Any
"""An array, or arrays by output name where there are several outputs."""


@dataclass(frozen=True)
class Metric:
    """A number that says how good predictions are.

    Attributes:
        name: What it is called in tables.
        function: Function of predictions and targets, both arrays or dicts of arrays.
        higher_is_better: Whether a high value is good.
    """

    name: str
    function: Callable[[Predictions, Any], float]
    higher_is_better: bool = True

    def __call__(self, predictions: Mapping[str, Array], targets: Any) -> float:
        """Return the metric of the outputs of a file.

        Args:
            predictions: Outputs by name, with the samples first.
            targets: An array, or arrays by output name.

        Returns:
            The value.

        Raises:
            ValueError: The value is no finite number, or a named metric does not fit the outputs.
        """
        given = dict(predictions) if len(predictions) > 1 else next(iter(predictions.values()))
        value = self.function(given, targets)
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"The metric {self.name!r} must give one number. Received: {value!r}"
            ) from error
        if not math.isfinite(number):
            raise ValueError(
                f"The metric {self.name!r} gives {number}, which tells no good model from a bad "
                "one. Look at the outputs of the model for NaN, and at the metric for a division "
                "by zero."
            )
        return number

    def percent(self) -> bool:
        """Return whether it is a share of right answers."""
        return self.function is accuracy

    def text(self, value: float) -> str:
        """Return a value as a table shows it."""
        return f"{value:.2%}" if self.percent() else f"{value:.4g}"

    def lost(self, loss: float) -> str:
        """Return how much worse a value is, in words."""
        amount = f"{100 * abs(loss):.2f} points" if self.percent() else f"{abs(loss):.3g}"
        return f"{amount} {'lost' if loss >= 0 else 'won'}"


def accuracy(predictions: Array, targets: Array) -> float:
    """Return the share of samples whose largest class is the target's.

    >>> accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
    0.5

    Args:
        predictions: Scores or probabilities `(samples, ..., classes)`; with a single class,
            probabilities of the second of two.
        targets: Classes as integers `(samples, ...)`, or one-hot in the shape of the predictions.

    Returns:
        A share from 0 to 1.
    """
    classes, targets = _classes(predictions), np.asarray(targets)
    if targets.shape != classes.shape:
        targets = _classes(targets) if targets.shape == predictions.shape else targets[..., 0]
    return float(np.mean(classes == targets))


def _classes(scores: Array) -> Array:
    found: Array = (scores[..., 0] > 0.5) if scores.shape[-1] == 1 else scores.argmax(-1)
    return found


def mean_squared_error(predictions: Array, targets: Array) -> float:
    """Return the mean squared difference of predictions and targets, of one shape."""
    return float(np.mean((_shaped(predictions, targets) - predictions) ** 2))


def mean_absolute_error(predictions: Array, targets: Array) -> float:
    """Return the mean absolute difference of predictions and targets, of one shape."""
    return float(np.mean(np.abs(_shaped(predictions, targets) - predictions)))


def _shaped(predictions: Array, targets: Array) -> Array:
    # As Keras does: targets of one number may come without their last axis.
    return np.asarray(targets, np.float64).reshape(predictions.shape)


METRICS = {
    "accuracy": Metric("accuracy", accuracy),
    "mean_squared_error": Metric("mean_squared_error", mean_squared_error, False),
    "mean_absolute_error": Metric("mean_absolute_error", mean_absolute_error, False),
}


def check_metric(metric: object, higher_is_better: object) -> Metric:
    """Return a metric, or raise if a value is none.

    >>> check_metric("accuracy", None).higher_is_better
    True

    Args:
        metric: A name in `METRICS`, or a function that takes (predictions, targets).
        higher_is_better: For a function, whether a high value is good; None means True.

    Returns:
        The metric.

    Raises:
        TypeError: It is neither a name nor a function.
        ValueError: There is no metric of this name, or `higher_is_better` is given with a name.
    """
    if higher_is_better is not None:
        check_bool("higher_is_better", higher_is_better)
    if isinstance(metric, str):
        check_choice("metric", metric, METRICS)
        if higher_is_better is not None:
            refuse("higher_is_better", f"left out with the metric {metric!r}", higher_is_better)
        return METRICS[metric]
    if metric is None:
        names = ", ".join(map(repr, METRICS))
        refuse("metric", f"one of {names}, or a function", metric, TypeError)
    function = check_function("metric", metric, "predictions", "targets")
    name = getattr(metric, "__name__", type(metric).__name__)
    return Metric(name, function, higher_is_better is not False)


def constant(metric: Metric, predictions: Mapping[str, Array], targets: Any) -> float | None:
    """Return the metric of a model that gives every sample the same output.

    The output is the best one for a named metric: the most frequent class, the mean or the median
    of the targets. For a function it is the mean of the predictions.

    >>> outputs = {"y": np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])}
    >>> round(constant(METRICS["accuracy"], outputs, np.array([0, 1, 1])), 2)
    0.67

    Args:
        metric: The metric.
        predictions: Outputs by name.
        targets: An array, or arrays by output name.

    Returns:
        The value; None if the metric cannot be computed of such outputs.
    """
    first = next(iter(predictions.values()))
    if metric.function is accuracy:
        labels = np.asarray(targets)
        one_hot = labels.shape == first.shape and labels.shape[-1] > 1
        labels = labels.argmax(-1) if one_hot else labels
        return float(np.unique(labels, return_counts=True)[1].max() / labels.size)
    if metric.function in (mean_squared_error, mean_absolute_error):
        middle = np.mean if metric.function is mean_squared_error else np.median
        values = _shaped(first, np.asarray(targets))
        return float(metric.function(np.broadcast_to(middle(values, axis=0), first.shape), values))
    means = {
        name: np.broadcast_to(array.mean(0).astype(array.dtype), array.shape)
        for name, array in predictions.items()
    }
    try:
        return metric(means, targets)
    except Exception:  # a function of the user's, on outputs that no model gives
        return None
