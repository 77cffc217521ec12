"""Judge a file by some of the validation data first: how much it loses, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tfcompress.model.samples import Array

from .data import Examples
from .metrics import Metric
from .target import loss_of

__all__ = ["Few", "few_of"]

_FEW = 500
_GROUPS = 10


@dataclass(frozen=True)
class Few:
    """Some of the validation data, and what the original makes of them.

    Attributes:
        examples: The samples and their targets.
        outputs: The original's outputs on them, by name.
    """

    examples: Examples
    outputs: dict[str, Array]

    def __len__(self) -> int:
        return len(self.examples)

    def loss(self, metric: Metric, outputs: Mapping[str, Array]) -> tuple[float, float]:
        """Return how much worse a file is than the original, and the standard error of that.

        Both are judged by the same samples, which differ less than two models on different ones.
        The error is that of a jackknife over ten groups of samples, which takes any metric.

        Reference:
            Kott 2001, "The Delete-a-Group Jackknife", Journal of Official Statistics 17(4).

        Args:
            metric: The metric.
            outputs: The file's outputs on the samples, by name.

        Returns:
            The loss and its standard error, in units of the metric.

        Raises:
            ValueError: The metric is no finite number.
        """
        rows = np.arange(len(self))
        kept = (rows[rows % _GROUPS != group] for group in range(_GROUPS))
        parts = np.array([self._loss(metric, outputs, part) for part in kept])
        spread = (_GROUPS - 1) / _GROUPS * float(np.sum((parts - parts.mean()) ** 2))
        return self._loss(metric, outputs, rows), math.sqrt(spread)

    def _loss(self, metric: Metric, outputs: Mapping[str, Array], rows: Array) -> float:
        part = self.examples.part(rows)
        ours = metric({name: array[rows] for name, array in self.outputs.items()}, part.y)
        theirs = metric({name: array[rows] for name, array in outputs.items()}, part.y)
        return loss_of(theirs, ours, metric.higher_is_better)


def few_of(
    examples: Examples, outputs: Mapping[str, Array], metric: Metric, most: int = _FEW
) -> Few | None:
    """Return evenly spaced samples of the validation data to judge files by first.

    >>> examples = Examples({"x": np.arange(4.0)}, np.array([0, 1, 0, 1]))
    >>> outputs = {"y": np.eye(2)[[0, 1, 0, 0]]}
    >>> few = few_of(examples, outputs, Metric("right", lambda p, y: np.mean(p.argmax(-1) == y)), 2)
    >>> few.examples.x["x"]
    array([0., 3.])

    Args:
        examples: The validation data.
        outputs: The original's outputs on them, by name.
        metric: The metric.
        most: Number of samples. Defaults to 500.

    Returns:
        The samples; None if there are no more than these, or if the metric, a function of the
        user's, cannot be computed on a part of the data.
    """
    if len(examples) <= most:
        return None
    rows = np.linspace(0, len(examples) - 1, most).round().astype(int)
    few = Few(examples.part(rows), {name: array[rows] for name, array in outputs.items()})
    try:
        few.loss(metric, few.outputs)
    except Exception:  # whatever a function of the user's raises; it works on all of the data
        return None
    return few
