"""How often which values occur in a tensor, gathered run by run. NumPy only.

Runs in child processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

BINS = 4096
"""Sixteen to a step of int8, so that a bin may stand for the values in it."""

VALUES = 4096
"""Values of a tensor that are counted in each sample: more hardly move a range, and take time."""


class NotFinite(ValueError):
    """Values hold NaN."""


@dataclass(frozen=True)
class Histogram:
    """The values of a tensor, counted in bins of equal width.

    The width is a power of two and a bin begins at zero. Where a wider one is needed, bins are
    joined in pairs, so that the counts do not depend on the order of the values.

    >>> seen = Histogram().add(np.float32([[-1.0, 0.0, 3.0]])).add(np.float32([[1.0, 7.0, 0.0]]))
    >>> seen.low, seen.high, seen.zeros, int(seen.counts.sum())
    (-1.0, 7.0, 2, 4)

    Attributes:
        low: Lowest value of all.
        high: Highest value of all.
        zeros: Number of zeros, which rounding leaves as they are. They are in no bin.
        exponent: Width of a bin, as a power of two.
        first: Number of bins between the first one and zero, negative below it.
        counts: Number of values in each bin, int64.
        size: Number of values, counted or not.
        lowest: The lowest value of each sample, float32.
        highest: The highest value of each sample, float32.
    """

    low: float = math.inf
    high: float = -math.inf
    zeros: int = 0
    exponent: int = -1074
    first: int = 0
    counts: Array = field(default_factory=lambda: np.zeros(1, np.int64), compare=False)
    size: int = 0
    lowest: Array = field(default_factory=lambda: np.zeros(0, np.float32), compare=False)
    highest: Array = field(default_factory=lambda: np.zeros(0, np.float32), compare=False)

    @property
    def centers(self) -> Array:
        """Return the value in the middle of each bin, float64."""
        middles = self.first + np.arange(len(self.counts)) + 0.5
        return np.asarray(np.ldexp(middles, self.exponent))

    def add(self, values: Array) -> Histogram:
        """Count the values of a run.

        Args:
            values: Floats; the first axis is the sample. Of each sample `VALUES` are counted at
                most, evenly spaced. The lowest and the highest value are those of all. Infinite
                ones, as in a mask, are left out.

        Returns:
            The counts of all runs.

        Raises:
            NotFinite: A value is NaN.
        """
        return self.join([Part.of(values)])

    def join(self, parts: Sequence[Part]) -> Histogram:
        """Count the values of several runs, which costs little more than those of one."""
        parts = [part for part in parts if part.size]
        if not parts:
            return self
        lows = np.concatenate([self.lowest, *(part.lowest for part in parts)])
        highs = np.concatenate([self.highest, *(part.highest for part in parts)])
        low, high = float(lows.min()), float(highs.max())
        exponent = max(self.exponent, _exponent(low, high))
        first = math.floor(math.ldexp(min(low, 0.0), -exponent))
        bins = math.floor(math.ldexp(max(high, 0.0), -exponent)) - first + 1
        some = np.concatenate([part.some for part in parts])
        zeros = some.size - int(np.count_nonzero(some))
        # Exact: the width is a power of two.
        places = np.floor(np.ldexp(some, -exponent)).astype(np.int32) - first
        counts = np.bincount(places, minlength=bins)
        counts[-first] -= zeros
        if exponent == self.exponent:
            counts[self.first - first :][: len(self.counts)] += self.counts
        else:
            known = np.flatnonzero(self.counts)
            places = ((known + self.first) >> (exponent - self.exponent)) - first
            np.add.at(counts, places, self.counts[known])
        size = self.size + sum(part.size for part in parts)
        zeros += self.zeros
        return Histogram(low, high, zeros, exponent, first, counts, size, lows, highs)


class Part(NamedTuple):
    """What is counted of a run.

    Attributes:
        some: Some values of each sample, evenly spaced, in one row.
        lowest: The lowest value of each sample.
        highest: The highest value of each sample.
        size: Number of values, counted or not.
    """

    some: Array
    lowest: Array
    highest: Array
    size: int

    @classmethod
    def of(cls, values: Array) -> Part:
        """Look at the values of a run, as `Histogram.add` takes them."""
        if not values.size:
            return cls(values.reshape(-1), values[:0], values[:0], 0)
        rows = _rows(values)
        lows, highs = rows.min(axis=1), rows.max(axis=1)
        if not math.isfinite(lows.min()) or not math.isfinite(highs.max()):
            if np.isnan(lows).any():
                raise NotFinite("The values hold NaN")
            return cls.of(values[np.isfinite(values)][None])
        return cls(thinned(values).reshape(-1), lows, highs, values.size)


def thinned(values: Array) -> Array:
    """Return some values of each sample, evenly spaced.

    >>> thinned(np.zeros((2, 100_000))).shape
    (2, 3704)

    Args:
        values: Floats; the first axis is the sample.

    Returns:
        Floats (samples, values), at most `VALUES` of each sample.
    """
    rows = _rows(values)
    return rows[:, :: _stride(rows.shape[1])]


def _rows(values: Array) -> Array:
    return values.reshape(len(values) if values.ndim > 1 else 1, -1)


def _stride(size: int) -> int:
    """Return a distance that has no factor in common with a size, so that it meets all channels."""
    stride = -(-size // VALUES)
    while math.gcd(stride, size) > 1:
        stride += 1
    return stride


def _exponent(low: float, high: float) -> int:
    """Return the width of the bins that a range needs, as a power of two."""
    width = max(high, 0.0) - min(low, 0.0)
    return math.frexp(width / BINS)[1] if width > 0.0 else -1074
