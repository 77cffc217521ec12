"""`Compression`: what `compress` found, and whether it is what was wanted."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from tfcompress.edge.arguments import LONGEST, check_number, check_path
from tfcompress.edge.shown import Shown
from tfcompress.edge.system.files import check_folder, write_whole
from tfcompress.model.tables import as_text, new_table

from .code import script
from .recipe import Outcome
from .report import html_report
from .target import Figures, Target, allows, met_by
from .verdict import reason, sentence
from .workbench import Workbench

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Best", "Compression"]


@dataclass(frozen=True)
class Best(os.PathLike[str]):
    """The best file that was found; usable wherever a path is.

    Attributes:
        file: The file.
        done: What was done to the original, in a few words.
        figures: What was measured of it.
        loss: How much worse its metric is than the original's over the validation data.
        test: The metric over the test data, which had no part in the choice; None without any.
        outcome: What was tried; None for the original itself.
    """

    file: Path
    done: str
    figures: Figures
    loss: float
    test: float | None = None
    outcome: Outcome | None = None

    def __fspath__(self) -> str:
        return str(self.file)


@dataclass(frozen=True)
class Compression(Shown):
    """What `compress` found. It holds the best, also where the target was missed.

    >>> import tfcompress as tfc
    >>> import numpy as np
    >>> keras.utils.set_random_seed(0)
    >>> x = np.random.default_rng(0).normal(size=(200, 16)).astype("float32")
    >>> y = (x.sum(1) > 0).astype("int64")
    >>> model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(256, "relu"),
    ...     keras.layers.Dense(2)])
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> model.compile("adam", loss, jit_compile=False)
    >>> history = model.fit(x, y, epochs=5, verbose=0)
    >>> target = tfc.Target(bytes=9_000, accuracy_drop=0.02)
    >>> result = tfc.compress(model, (x, y), (x, y), target, minutes=0.001)  # time for nothing
    >>> result.met, result.best.done
    (False, 'nothing')

    Attributes:
        target: What was wanted.
        original: What was measured of the original as a float32 file.
        best: The best file: one that meets the target, or else the closest one.
        outcomes: All that was tried, in order.
        seconds: Time that it took.
        ended: Why nothing more was tried.
        original_test: The metric of the original over the test data; None without any.
    """

    target: Target
    original: Figures
    best: Best
    outcomes: tuple[Outcome, ...]
    seconds: float
    ended: str
    original_test: float | None = None
    bench: Workbench = field(repr=False, kw_only=True)
    _kept: Any = field(default=None, repr=False)
    _again: Callable[..., Compression] | None = field(default=None, repr=False)

    @functools.cached_property
    def met(self) -> bool:
        """Return whether the best file meets the target."""
        return met_by(self.target, self.best.figures, self.best.loss)

    @functools.cached_property
    def why(self) -> str:
        """Return how good the best file is and, if the target was missed, by how much and why."""
        said = sentence(self.original, self.best.figures, self.best.loss, self.bench)
        if self.met:
            return f"The target is met. {said}"
        missed = reason(self.target, self.outcomes, self.bench, self.ended)
        return f"{missed} The best so far: {said}"

    @property
    def pareto(self) -> tuple[Outcome, ...]:
        """Return the outcomes than which no other is better in all respects, the smallest first."""
        with_time = self.target.latency is not None or self.target.minimize == "latency"

        def costs(outcome: Outcome) -> tuple[float, ...]:
            figures = outcome.figures
            if figures is None:
                return ()
            return (figures.bytes, outcome.loss, *([figures.latency] if with_time else []))

        known = [o for o in self.outcomes if o.figures is not None]
        front = [
            o
            for o in known
            if not any(
                costs(other) != costs(o)
                and all(a <= b for a, b in zip(costs(other), costs(o), strict=True))
                for other in known
            )
        ]
        return tuple(sorted(front, key=costs))

    @property
    def model(self) -> keras.Model:
        """Return the Keras model that the best file was made from."""
        outcome = self.best.outcome
        if outcome is None or not outcome.recipe.changes:
            return self.bench.model
        return self.bench.training.changed(outcome.recipe)

    @property
    def table(self) -> Table:
        """Return a table of all that was tried, for a rich console; `print(result)` shows it."""
        columns = self._columns()
        table = new_table(columns, numbers=columns[1:-1], title=self.why)
        for row in self.rows():
            table.add_row(*row)
        return table

    def _columns(self) -> list[str]:
        name = self.bench.metric.name.capitalize()
        return ["What", "Bytes", "Smaller", name, "Lost", "ms", "Faster", ""]

    def rows(self) -> list[list[str]]:
        """Return the cells of the table: what, six figures, and a note."""
        metric = self.bench.metric

        def cells(found: Figures, loss: float) -> list[str]:
            return [
                f"{found.bytes:,}",
                f"{self.original.bytes / found.bytes:.1f}x",
                metric.text(found.metric),
                metric.text(loss) if loss else "",
                f"{found.milliseconds:.3g}",
                f"{1 / found.latency:.2f}x",
            ]

        rows = [["original, float32", *cells(self.original, 0.0), ""]]
        for outcome in self.outcomes:
            known = outcome.figures
            figures = [""] * 6 if known is None else cells(known, outcome.loss)
            rows.append([outcome.recipe.label(), *figures, self._note(outcome)])
        return rows

    def _note(self, outcome: Outcome) -> str:
        said = [self._fate(outcome)]
        if outcome.samples:
            said.append(f"estimated on {outcome.samples} samples")
        return ", ".join(filter(None, said))

    def _fate(self, outcome: Outcome) -> str:
        figures, target = outcome.figures, self.target
        if figures is None:
            return outcome.why
        if self.best.outcome is not None and outcome.recipe == self.best.outcome.recipe:
            return "best"
        if target.bytes is not None and figures.bytes > target.bytes:
            return "too large"
        if target.latency is not None and figures.latency > target.latency:
            return "too slow"
        if outcome.recipe.changes and not outcome.recipe.epochs:
            return "fits"
        return "" if allows(target, outcome.loss) else "loses too much"

    def __rich__(self) -> Table:
        return self.table

    def __str__(self) -> str:
        return as_text(self.table, width=120)

    def code(self) -> str:
        """Return a Python script that makes the best file again, without the planner."""
        return script(self.best.outcome, self.bench)

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write all of it as one HTML page.

        Args:
            path: The file to write, which ends in .html; its folder exists.

        Returns:
            The path.

        Raises:
            ValueError: The path does not end in .html, or there is no such folder.
        """
        target = _output(path, ".html")
        metric, said = self.bench.metric, [self.why]
        if self.best.test is not None and self.original_test is not None:
            said.append(
                f"On test data, by which nothing was chosen: {metric.text(self.best.test)}, the "
                f"original {metric.text(self.original_test)}."
            )
        page = html_report(
            self.bench.model.name,
            said,
            self._columns(),
            self.rows(),
            [outcome.recipe.label() for outcome in self.pareto],
            self.best.file,
            self.code(),
        )
        write_whole({target: page.encode()})
        return target

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Copy the best file.

        Args:
            path: Where to write it; its folder exists.

        Returns:
            The path.

        Raises:
            ValueError: The path does not end in .tflite, or there is no such folder.
        """
        target = _output(path, ".tflite")
        write_whole({target: self.best.file.read_bytes()})
        return target

    def resume(self, minutes: float = 30.0) -> Compression:
        """Go on where the work ended, for some more minutes.

        Args:
            minutes: Time after which nothing new is tried. Defaults to 30.

        Returns:
            A new result, which begins with all that this one has.

        Raises:
            ValueError: The result was not made by `compress`.
        """
        check_number("minutes", minutes, above=0, most=LONGEST / 60)
        if self._again is None:
            raise ValueError("Only a result of `compress` can be resumed.")
        return dataclasses.replace(self._again(minutes=minutes), _kept=self._kept)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for `json.dumps`."""
        return {
            "met": self.met,
            "why": self.why,
            "target": asdict(self.target),
            "original": asdict(self.original) | {"test": self.original_test},
            "best": asdict(self.best.figures)
            | {
                "file": str(self.best.file),
                "done": self.best.done,
                "loss": self.best.loss,
                "test": self.best.test,
            },
            "seconds": self.seconds,
            "tried": [
                {**outcome.to_dict(), "label": outcome.recipe.label()} for outcome in self.outcomes
            ],
        }


def _output(path: str | os.PathLike[str], suffix: str) -> Path:
    """Return the path of a file to write, checked."""
    target = check_path("path", path)
    if target.suffix != suffix:
        raise ValueError(f"`path` must end in {suffix}. Received: path={str(target)!r}")
    check_folder(target)
    return target
