"""From the values of a tensor to the range in which int8 holds them best. NumPy only.

Runs in child processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .histogram import Histogram

Array = np.ndarray[Any, np.dtype[Any]]

STEPS = 255
"""Steps of an int8 tensor from its lowest to its highest value."""

TAIL = 1e-4
"""Share of the values that `percentile` cuts off at each end."""

# Candidates: each is 3% narrower than the one before, from twice the range to a thirtieth.
_WIDER = 23
_SHARES = 0.97 ** np.arange(-_WIDER, 112.0)

_SAMPLES = 16
"""Samples that tell how far the highest value of other samples may lie."""

_TRUST = 0.5
"""Share of the shape of their distribution that 64 samples are believed: measured best."""


def minmax(seen: Histogram) -> tuple[float, float]:
    """Return the lowest and the highest value."""
    return seen.low, seen.high


def percentile(seen: Histogram) -> tuple[float, float]:
    """Return the range without the lowest and the highest 10,000th of the values.

    >>> values = np.append(np.linspace(0.0, 1.0, 100_000), 50.0)
    >>> low, high = percentile(Histogram().add(values[:, None]))
    >>> round(high, 1)
    1.0
    """
    centers, counts = seen.centers, seen.counts
    order = np.searchsorted(centers, 0.0)
    values, numbers = np.insert(centers, order, 0.0), np.insert(counts, order, seen.zeros)
    below = np.cumsum(numbers)
    total = int(below[-1])
    low = values[np.searchsorted(below, TAIL * total, side="right")]
    high = values[np.searchsorted(below, (1.0 - TAIL) * total)]
    # The middle of a bin may lie beyond the values in it.
    return float(np.clip(low, seen.low, seen.high)), float(np.clip(high, seen.low, seen.high))


def mse(seen: Histogram, steps: int = STEPS) -> tuple[float, float]:
    """Return the range whose integers are nearest to the values, by the mean squared error.

    A narrower range has finer steps and clips more. With n values inside and steps of s, rounding
    adds n * s^2 / 12 to the squared error, and each value x beyond a bound b adds (x - b)^2. Zeros
    add nothing. Both bounds are searched together, in steps of 3%.

    Other samples have higher values than these, by what the highest value of each tells (`unseen`).
    A bound may thus lie beyond all that was seen. It does where a tensor has few values: an image
    has thousands for each one beyond the bound.

    >>> normal = np.random.default_rng(0).normal(size=(64, 4096))
    >>> low, high = mse(Histogram().add(normal))
    >>> bool(high < normal.max()), round(high, 1)
    (True, 3.9)

    Args:
        seen: The values.
        steps: Number of steps from the lowest to the highest integer. Defaults to 255.

    Returns:
        The lowest and the highest value of the range. A bound that nothing is gained by moving
        stays where it was.

    Reference:
        Sung et al. 2015, https://arxiv.org/abs/1511.06488
    """
    if not seen.high > seen.low:
        return seen.low, seen.high
    highs = max(seen.high, 0.0) * (_SHARES if seen.high > 0.0 else np.ones(1))
    lows = min(seen.low, 0.0) * (_SHARES if seen.low < 0.0 else np.ones(1))
    above, clipped_high = _beyond(seen.centers, seen.counts, highs)
    below, clipped_low = _beyond(-seen.centers[::-1], seen.counts[::-1], -lows)
    inside = seen.counts.sum() - below[:, None] - above[None, :]
    noise = inside * ((highs[None, :] - lows[:, None]) / steps) ** 2 / 12.0
    # Of these values only some are counted.
    share = (seen.counts.sum() + seen.zeros) / seen.size
    unseen_high = share * unseen(seen.highest, np.maximum(highs, seen.high))
    unseen_low = share * unseen(seen.lowest, np.minimum(lows, seen.low))
    error = noise + (clipped_low + unseen_low)[:, None] + (clipped_high + unseen_high)[None, :]
    row, column = np.unravel_index(int(error.argmin()), error.shape)
    low = seen.low if lows[row] == min(seen.low, 0.0) else float(lows[row])
    return low, seen.high if highs[column] == max(seen.high, 0.0) else float(highs[column])


def unseen(ends: Array, bounds: Array) -> Array:
    """Return what new samples are expected to have beyond each of some bounds.

    The ends follow a generalized extreme value distribution, of shape k, scale c and mode m. Its
    tail beyond b is a generalized Pareto distribution: with u = 1 - k * (b - m) / c, an end adds
    2 * (c * u)^2 * u^(1 / k) / ((1 + k) * (1 + 2 * k)) there on average.

    Args:
        ends: The highest value of each sample, or the lowest one.
        bounds: Values from the highest one up, or from the lowest one down.

    Returns:
        For each bound the sum of the squared distances from it, of as many samples. Zeros if there
        are too few to tell, or if two have the same value, as they do where a function ends.

    Reference:
        Coles 2001, An Introduction to Statistical Modeling of Extreme Values
    """
    sign = 1.0 if bounds[-1] > ends.mean() else -1.0
    highest, bounds = sign * ends.astype(np.float64), sign * bounds
    if len(highest) < _SAMPLES or np.count_nonzero(highest == highest.max()) > 1:
        return np.zeros(len(bounds))
    shape, scale, mode = _extreme_values(highest)
    rest = np.maximum(1.0 - shape * (bounds - mode) / scale, 0.0)
    each = (scale * rest) ** 2 * rest ** (1.0 / shape)
    return np.asarray(len(highest) * 2.0 * each / ((1.0 + shape) * (1.0 + 2.0 * shape)))


def _extreme_values(values: Array) -> tuple[float, float, float]:
    """Return shape, scale and mode of a generalized extreme value distribution, by L-moments.

    Reference:
        Hosking 1990, https://doi.org/10.1111/j.2517-6161.1990.tb01775.x
    """
    ranked, rank, count = np.sort(values), np.arange(len(values)), len(values)
    first, second, third = (
        float(np.mean(ranked * weight))
        for weight in (1.0, rank / (count - 1), rank * (rank - 1) / ((count - 1) * (count - 2)))
    )
    mean, spread, skewness = first, 2 * second - first, 6 * third - 6 * second + first
    known = 2.0 / (3.0 + skewness / spread) - math.log(2.0) / math.log(3.0)
    # Few samples hardly tell the shape: half of it, and no heavier tail than 0 has, lost least.
    shape = max(_TRUST * (7.8590 * known + 2.9554 * known**2), 1e-6)
    gamma = math.gamma(1.0 + shape)
    scale = spread * shape / ((1.0 - 2.0**-shape) * gamma)
    return shape, scale, mean - scale * (1.0 - gamma) / shape


def _beyond(centers: Array, counts: Array, bounds: Array) -> tuple[Array, Array]:
    """Return for each bound the number of values above it, and their squared distances from it."""
    moments = [np.cumsum((counts * centers**power)[::-1])[::-1] for power in (0, 1, 2)]
    number, total, squares = (np.append(moment, 0.0) for moment in moments)
    place = np.searchsorted(centers, bounds, side="right")
    distances = squares[place] - 2 * bounds * total[place] + bounds**2 * number[place]
    return number[place], np.maximum(distances, 0.0)


CHOICES: dict[str, Callable[[Histogram], tuple[float, float]]] = {
    "mse": mse,
    "minmax": minmax,
    "percentile": percentile,
}
"""The choices by name, as `Int8(ranges=...)` takes them."""


def choose(name: str, seen: Histogram, bits: int = 8) -> tuple[float, float]:
    """Return the range of a tensor.

    >>> choose("minmax", Histogram().add(np.float32([[-1.0, 3.0]])))
    (-1.0, 3.0)

    Args:
        name: One of `CHOICES`.
        seen: The values of the tensor.
        bits: Bits of its integers. Defaults to 8.
    """
    return mse(seen, 2**bits - 1) if name == "mse" else CHOICES[name](seen)
