"""From the values of a tensor to the range in which int8 holds them best. NumPy only.

Runs in child processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .histogram import Histogram

Array = np.ndarray[Any, np.dtype[Any]]

STEPS = 255
"""Steps of an int8 tensor from its lowest to its highest value."""

TAIL = 1e-4
"""Share of the values that `percentile` cuts off at each end."""

# Candidates: each is 3% narrower than the one before, down to a thirtieth.
_SHARES = 0.97 ** np.arange(112)


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
    error = noise + clipped_low[:, None] + clipped_high[None, :]
    row, column = np.unravel_index(int(error.argmin()), error.shape)
    low = float(lows[row]) if row else seen.low
    return low, float(highs[column]) if column else seen.high


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
