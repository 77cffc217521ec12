"""The search for the smallest reduction within a latency, with a clock of our own."""

import keras
import pytest
from keras import layers

from tfcompress import budgets
from tfcompress.cost import latency

ADVICE = "Let more layers be cut."


@pytest.fixture
def original():
    return keras.Sequential([keras.Input((4,)), layers.Dense(2)], name="net")


@pytest.fixture
def measured(monkeypatch):
    """A clock for which a candidate, here a reduction, takes what is left of it."""
    found = []

    def stopwatch(self, candidate):
        found.append(candidate)
        return 1 - candidate

    monkeypatch.setattr(latency.Stopwatch, "__init__", lambda *args: None)
    monkeypatch.setattr(latency.Stopwatch, "__call__", stopwatch)
    return found


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.77])
def test_least_reduction_is_within_the_budget_and_hardly_below_it(original, measured, share):
    found = latency.least_reduction(budgets.Latency(share), original, float, ADVICE)
    assert 0 <= share - (1 - found) < 2**-latency.MEASUREMENTS
    assert found in measured  # What it returns was measured, not inferred.
    assert len(measured) == 1 + latency.MEASUREMENTS


def test_least_reduction_takes_milliseconds(original, measured):
    budget = budgets.Latency(milliseconds=0.5)
    assert latency.least_reduction(budget, original, float, ADVICE) == 0.5


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (budgets.Latency(0.1), "'net' cannot be cut to 0.1 times its own latency: the smallest"),
        (budgets.Latency(milliseconds=0.1), r"takes 0\.25 ms\. Let more layers be cut\."),
    ],
)
def test_least_reduction_says_what_is_possible(original, measured, budget, message):
    with pytest.raises(ValueError, match=message):
        latency.least_reduction(budget, original, lambda reduction: 0.75 * reduction, ADVICE)
    assert len(measured) == 1
