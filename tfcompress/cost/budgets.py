"""How small a model is to become: in multiply-accumulates, parameters or milliseconds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import keras

from tfcompress import converters, edge

from .summary import summary

__all__ = ["Budget", "Latency", "Macs", "Parameters", "Stopwatch", "cost", "limit"]


@dataclass(frozen=True)
class Macs:
    """At most so many multiply-accumulates for one sample, as `tfcompress.summary` counts them.

    >>> Macs(0.5), Macs(12_000_000)
    (Macs(most=0.5), Macs(most=12000000))

    Args:
        most: A share of the model's own, above 0 and at most 1.0, as a float; or a number of them,
            as an int.

    Raises:
        TypeError: It is no number.
        ValueError: It is out of range.
    """

    most: float | int

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class Parameters:
    """At most so many weights, trainable or not, as `tfcompress.summary` counts them.

    >>> Parameters(0.25)
    Parameters(most=0.25)

    Args:
        most: A share of the model's own, above 0 and at most 1.0, as a float; or a number of them,
            as an int.

    Raises:
        TypeError: It is no number.
        ValueError: It is out of range.
    """

    most: float | int

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class Latency:
    """At most so much time for one sample, measured on this machine with `edge.benchmark`.

    Each candidate is converted to float32 with a batch of one, and run in turns with the model
    itself: the ratio of the two counts, which a noisy machine disturbs least.

    >>> Latency(0.5, threads=2)
    Latency(most=0.5, milliseconds=None, delegate='xnnpack', threads=2)

    Args:
        most: A share of the model's own latency, above 0 and at most 1.
        milliseconds: Or the median time itself.
        delegate: As in `edge.benchmark`.
        threads: Likewise.

    Raises:
        TypeError: Something is no number.
        ValueError: Not just one of `most` and `milliseconds` is given, or it is out of range.
    """

    most: float | None = None
    milliseconds: float | None = None
    delegate: str = "xnnpack"
    threads: int | None = None

    def __post_init__(self) -> None:
        if (self.most is None) == (self.milliseconds is None):
            raise ValueError(
                "A latency budget is one of `most`, a share, and `milliseconds`. Received: "
                f"most={self.most!r}, milliseconds={self.milliseconds!r}"
            )
        for name, value in (("most", self.most), ("milliseconds", self.milliseconds)):
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"`{name}` of Latency must be a number. Received: {value!r}")
            if not 0 < value < (math.inf if name == "milliseconds" else 1.0 + 1e-9):
                raise ValueError(
                    f"`{name}` of Latency must be above 0"
                    + (" and at most 1" if name == "most" else " and finite")
                    + f". Received: {value!r}"
                )


Budget: TypeAlias = Macs | Parameters | Latency


def _check(budget: Macs | Parameters) -> None:
    most = budget.most
    if isinstance(most, bool) or not isinstance(most, int | float):
        raise TypeError(f"`most` of {type(budget).__name__} must be a number. Received: {most!r}")
    if not (most > 0 and (isinstance(most, int) or most <= 1)):
        raise ValueError(
            f"`most` of {type(budget).__name__} must be a float above 0 and at most 1.0 (a share) "
            f"or an int above 0 (a number). Received: {most!r}"
        )


def limit(budget: Macs | Parameters, model: keras.Model) -> int:
    """The number that a budget allows, of a certain model."""
    if isinstance(budget.most, int):
        return budget.most
    return int(budget.most * cost(budget, model))


def cost(budget: Macs | Parameters, model: keras.Model) -> int:
    """What a model costs, in the unit of a budget.

    Raises:
        ValueError: Its multiply-accumulates cannot be counted.
    """
    total = summary(model).total
    if isinstance(budget, Parameters):
        return total.parameters
    if total.macs is None:
        raise ValueError(
            f"The multiply-accumulates of {model.name!r} cannot be counted: `tfcompress.summary` "
            "shows where. Use `Parameters` or `Latency`."
        )
    return total.macs


class Stopwatch:
    """Measures candidates for a latency budget, in turns with the model itself.

    Args:
        budget: Says what is measured: a share of the model's own latency, or milliseconds.
        model: The model.
        folder: Where the files go.
    """

    def __init__(self, budget: Latency, model: keras.Model, folder: str) -> None:
        self.budget = budget
        self.folder = Path(folder)
        self.original = self._converted(model, "original")

    def _converted(self, model: keras.Model, name: str) -> converters.Converted:
        return converters.convert(model, self.folder / f"{name}.tflite", batch_size=1)

    def __call__(self, candidate: keras.Model) -> float:
        """What the budget limits, of a candidate.

        Raises:
            RuntimeError: It cannot be measured.
        """
        files = [self.original, self._converted(candidate, "candidate")]
        results = edge.benchmark(files, self.budget.delegate, self.budget.threads)
        for result in results:
            if result.status != "ok":
                raise RuntimeError(
                    f"The latency of {candidate.name!r} cannot be measured with the delegate "
                    f"{self.budget.delegate!r}: {result.reason}"
                )
        small = results[1]
        assert small.median_ms is not None and small.speedup is not None
        return small.median_ms if self.budget.most is None else 1 / small.speedup
