"""A clock that does not depend on the machine, for budgets of latency."""

import keras
import pytest

from tfcompress import budgets
from tfcompress.cost import latency


def latency_by_macs(monkeypatch: pytest.MonkeyPatch, original: keras.Model) -> list[float]:
    """Let every candidate take the time that its share of the original's MACs says.

    Returns the shares of the candidates, as they are measured.
    """
    whole = budgets.Macs(1.0)
    macs = budgets.cost(whole, original)
    seen: list[float] = []

    def measured(self: latency.Stopwatch, candidate: keras.Model) -> float:
        seen.append(budgets.cost(whole, candidate) / macs)
        return seen[-1]

    monkeypatch.setattr(latency.Stopwatch, "__init__", lambda *args: None)
    monkeypatch.setattr(latency.Stopwatch, "__call__", measured)
    return seen
