"""Statistics of measured times."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def statistics(rounds: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Compute percentiles, mean and standard deviation of all runs.

    >>> from tfcompress.edge.timings import statistics
    >>> found = statistics([[1_000_000, 2_000_000], [3_000_000]])
    >>> found["median_ms"], found["runs"]
    (2.0, 3)

    Args:
        rounds: Nanoseconds of each run, for each round.

    Returns:
        `min_ms`, `p10_ms`, `median_ms`, `p90_ms`, `p99_ms`, `mean_ms` and `std_ms`, in
        milliseconds, and `runs`, their number. A percentile between two runs is linear.
    """
    times = np.concatenate([np.asarray(times, np.float64) for times in rounds]) / 1e6
    low, median, high, highest = np.percentile(times, [10, 50, 90, 99])
    return {
        "min_ms": float(times.min()),
        "p10_ms": float(low),
        "median_ms": float(median),
        "p90_ms": float(high),
        "p99_ms": float(highest),
        "mean_ms": float(times.mean()),
        "std_ms": float(times.std()),
        "runs": int(times.size),
    }


def speedups(first: Sequence[Sequence[int]], own: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Compute how many times faster a file is than the first one, within each round.

    A disturbance of the machine that lasts for a round disturbs both files, and leaves the ratio.

    >>> from tfcompress.edge.timings import speedups
    >>> speedups([[100], [300]], [[50], [150]])["speedup"]
    2.0

    Args:
        first: Nanoseconds of each run of the first file, for each round.
        own: Nanoseconds of each run of the file, for each round.

    Returns:
        The median over the rounds of the ratio of median times, `speedup`, and its 10th and 90th
        percentiles, `speedup_p10` and `speedup_p90`.
    """
    ratios = [
        float(np.median(reference) / np.median(times))
        for reference, times in zip(first, own, strict=True)
    ]
    low, median, high = np.percentile(ratios, [10, 50, 90])
    return {"speedup": float(median), "speedup_p10": float(low), "speedup_p90": float(high)}
