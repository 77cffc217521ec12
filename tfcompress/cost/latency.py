"""Measured latency of candidates, and the search for the largest model within a latency budget."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
from rich.console import Console
from rich.progress import Progress

from tfcompress import converters, edge
from tfcompress.edge.system.scratch import scratch_folder

from .budgets import Latency

__all__ = ["Stopwatch", "least_reduction"]

MEASUREMENTS = 6  # Halves the range to a 64th, which is finer than the noise.


class Stopwatch:
    """Measures candidates for a latency budget, in turns with the original model.

    Args:
        budget: Says what is measured: a share of the original's latency, or milliseconds.
        model: The original model.
        folder: Folder for the .tflite files.
    """

    def __init__(self, budget: Latency, model: keras.Model, folder: str | Path) -> None:
        self.budget = budget
        self.folder = Path(folder)
        self.original = self._converted(model, "original")

    def _converted(self, model: keras.Model, name: str) -> converters.Converted:
        return converters.convert(model, self.folder / f"{name}.tflite", batch_size=1)

    def __call__(self, candidate: keras.Model) -> float:
        """Return the latency of a candidate, in the unit of the budget.

        Raises:
            edge.ModelRefused: If it cannot be measured, with the reason.
        """
        files = [self.original, self._converted(candidate, "candidate")]
        results = edge.benchmark(files, self.budget.delegate, self.budget.threads)
        for result in results:
            if result.status != "ok":
                raise edge.ModelRefused(
                    f"The latency of {candidate.name!r} cannot be measured with the delegate "
                    f"{self.budget.delegate!r}: {result.reason}"
                )
        small = results[1]
        assert small.median_ms is not None and small.speedup is not None
        return small.median_ms if self.budget.most is None else 1 / small.speedup


def least_reduction(
    budget: Latency, model: keras.Model, reduced: Callable[[float], keras.Model], advice: str
) -> float:
    """Find how little of a model must be reduced to bring it within a latency budget.

    The range is halved by measurements: latency is taken to fall as the reduction grows. The
    largest reduction is measured first, since a budget below it is impossible.

    Args:
        budget: The latency to reach.
        model: The original model.
        reduced: Returns the model at a reduction from 0 (nothing) to 1 (as much as possible).
        advice: A sentence for the error: what would allow smaller models.

    Returns:
        The smallest reduction, 0 to 1, that was measured to be within the budget.

    Raises:
        ValueError: If the model is above the budget at the largest reduction.
        edge.ModelRefused: If a candidate cannot be measured.
    """
    wanted = budget.milliseconds if budget.most is None else budget.most
    assert wanted is not None
    console = Console(stderr=True)
    with (
        scratch_folder() as folder,
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task("Measuring candidates", total=MEASUREMENTS + 1)
        stopwatch = Stopwatch(budget, model, folder)

        def measure(reduction: float) -> float:
            latency = stopwatch(reduced(reduction))
            progress.advance(task)
            return latency

        least = measure(1.0)
        if least > wanted:
            unit = " ms" if budget.most is None else " times its own latency"
            raise ValueError(
                f"{model.name!r} cannot be cut to {wanted:.3g}{unit}: the smallest possible takes "
                f"{least:.3g}{unit}. {advice}"
            )
        low, high = 0.0, 1.0
        for _ in range(MEASUREMENTS):
            middle = (low + high) / 2
            low, high = (low, middle) if measure(middle) <= wanted else (middle, high)
    return high
