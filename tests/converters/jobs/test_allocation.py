import itertools
import sys

import numpy as np
import pytest

from tfcompress.converters.jobs.allocation import allocate, relative_error


@pytest.mark.parametrize("seed", range(5))
def test_allocate_finds_the_choice_with_the_least_error(seed):
    rng = np.random.default_rng(seed)
    errors = rng.uniform(0.001, 0.02, 9)
    savings = rng.integers(16, 5000, 9)
    least = int(savings.sum() * rng.uniform(0.2, 0.9))
    choices = [c for c in itertools.product([0, 1], repeat=9) if savings @ c >= least]
    best = min(errors @ c for c in choices)
    found = np.array(allocate(list(errors), list(savings), least))
    assert savings @ found >= least
    assert errors @ found <= best * (1 + 1e-6)


def test_allocate_takes_all_or_nothing():
    assert allocate([0.1, 0.2], [16, 32], 0) == [False, False]
    assert allocate([0.1, 0.2], [16, 32], 48) == [True, True]
    with pytest.raises(ValueError, match="all together save 48 bytes"):
        allocate([0.1, 0.2], [16, 32], 49)


def test_allocate_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ImportError, match=r"pip install 'tfcompress\[tensorflow\]'"):
        allocate([0.1], [16], 16)


def test_relative_error_is_a_share_of_the_weights():
    weights = np.random.default_rng(0).normal(size=(4, 1000)).astype(np.float32)
    # Rounding to steps of s has the squared error s²/12; s is a seventh of the largest weight.
    expected = np.mean((np.abs(weights).max(axis=1) / 7) ** 2 / 12)
    assert relative_error(weights) == pytest.approx(expected, rel=0.1)
    assert relative_error(weights * 1000) == pytest.approx(relative_error(weights), rel=1e-3)
    assert relative_error(np.zeros((2, 3), np.float32)) == 0.0
