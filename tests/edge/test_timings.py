import statistics

import numpy as np
import pytest

from tfcompress.edge import timings


def test_statistics_equal_the_standard_librarys():
    times = np.random.default_rng(0).integers(10**5, 10**7, 101).tolist()
    found = timings.statistics([times[:50], times[50:]])
    cuts = statistics.quantiles((t / 1e6 for t in times), n=100, method="inclusive")
    expected = {
        "min_ms": min(times) / 1e6,
        "p10_ms": cuts[9],
        "median_ms": statistics.median(times) / 1e6,
        "p90_ms": cuts[89],
        "p99_ms": cuts[98],
        "mean_ms": statistics.fmean(times) / 1e6,
        "std_ms": statistics.pstdev(times) / 1e6,
        "runs": 101,
    }
    assert found == pytest.approx(expected, rel=1e-12)


def test_speedups_are_taken_within_rounds():
    """A machine that slows down threefold for both files changes no ratio."""
    first = [[100, 110, 120], [300, 330, 360]]
    own = [[50, 55, 60], [150, 165, 180]]
    assert timings.speedups(first, own) == {"speedup": 2, "speedup_p10": 2, "speedup_p90": 2}
    own = [[110, 110, 110], [110, 110, 110]]
    # 110 / 110 and 330 / 110.
    assert timings.speedups(first, own) == pytest.approx(
        {"speedup": 2.0, "speedup_p10": 1.2, "speedup_p90": 2.8}
    )
