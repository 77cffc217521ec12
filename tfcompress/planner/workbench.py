"""`Workbench`: what a recipe is tried on, and `try_recipe`, which does it."""

from __future__ import annotations

import hashlib
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import keras

from tfcompress import edge
from tfcompress.converters.conversion import convert
from tfcompress.edge.system.files import write_whole
from tfcompress.edge.system.scratch import scratch_folder
from tfcompress.model.quantized import is_quantized
from tfcompress.model.samples import Array

from .baseline import Baseline, batch_of
from .data import Examples
from .measure import Device, outputs_of
from .metrics import Metric
from .recipe import Outcome, Recipe
from .stops import CannotGoOn, check_device, check_disk
from .target import Figures, Target, loss_of
from .training import TimeUp, Training

__all__ = ["Workbench", "try_recipe"]


@dataclass(frozen=True)
class Workbench:
    """The original, the data, and what is measured how.

    Attributes:
        model: The original, which stays as it is.
        samples: Calibration samples by input name.
        validation: What the metric is computed on.
        metric: The metric.
        device: What latencies are measured on.
        target: What is wanted.
        baseline: The original as a float32 file.
        folder: Where files are kept.
        training: How changed models are trained on.
    """

    model: keras.Model
    samples: dict[str, Array]
    validation: Examples
    metric: Metric
    device: Device
    target: Target
    baseline: Baseline
    folder: Path
    training: Training

    def loss(self, metric: float) -> float:
        """Return how much worse a metric is than the original's."""
        return loss_of(metric, self.baseline.figures.metric, self.metric.higher_is_better)

    def metric_at(self, loss: float) -> float:
        """Return the metric that is so much worse than the original's."""
        original = self.baseline.figures.metric
        return original - loss if self.metric.higher_is_better else original + loss


def try_recipe(bench: Workbench, recipe: Recipe, estimate: Outcome | None = None) -> Outcome:
    """Do what a recipe says, and measure the file.

    A file that nothing was trained for is judged by a part of the validation data, if there are
    many: most of these lose too much, or are too large. An error belongs to the recipe, and is the
    reason why it was dropped.

    Args:
        bench: The original, the data, and what is measured how.
        recipe: What to do.
        estimate: What came of it before, to be measured on all validation data. Defaults to None.

    Returns:
        The figures, or why there are none.

    Raises:
        TimeUp: It was not trained to the end.
        CannotGoOn: The disk is full, or the device went away.
    """
    start = time.monotonic()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        try:
            outcome = _tried(bench, recipe) if estimate is None else _confirmed(bench, estimate)
        except (TimeUp, CannotGoOn):
            raise
        except Exception as error:  # whatever a method, a converter or a device raises
            check_disk(error)
            lines = str(error).strip().splitlines() or [type(error).__name__]
            outcome = Outcome(recipe, why=lines[0])
    notes = tuple(dict.fromkeys(str(w.message) for w in said if _ours(w)))
    return replace(outcome, seconds=time.monotonic() - start, notes=notes or outcome.notes)


def _confirmed(bench: Workbench, estimate: Outcome) -> Outcome:
    """Return an estimated outcome with its metric over all validation data."""
    path, figures = bench.folder / estimate.file, estimate.figures
    if figures is None or not path.exists():
        return _tried(bench, estimate.recipe, estimated=False)
    outputs = outputs_of(path, bench.validation.x, bench.device.here)
    metric = bench.metric(outputs, bench.validation.y)
    figures = replace(figures, metric=metric)
    return replace(estimate, figures=figures, loss=bench.loss(metric), samples=0, error=0.0)


def _tried(bench: Workbench, recipe: Recipe, estimated: bool = True) -> Outcome:
    model = bench.training.changed(recipe) if recipe.changes else bench.model
    with scratch_folder() as scratch:
        draft = scratch / "candidate.tflite"
        convert(
            model,
            draft,
            recipe.file.precision(None if is_quantized(model) else bench.samples),
            batch_size=batch_of(bench.model),
            sparse=recipe.file.sparse(),
        )
        few = bench.baseline.few if estimated and not recipe.epochs else None
        judged = bench.validation if few is None else few.examples
        outputs = outputs_of(draft, judged.x, bench.device.here)
        if few is None:
            metric, error = bench.metric(outputs, judged.y), 0.0
            loss = bench.loss(metric)
        else:
            loss, error = few.loss(bench.metric, outputs)
            metric = bench.metric_at(loss)
        try:
            times = bench.device.latency(draft, bench.baseline.file, bench.validation.first())
        except edge.ModelRefused:
            check_device(bench.device, bench.baseline.file, bench.validation)
            raise  # the file is to blame
        figures = Figures(draft.stat().st_size, metric, *times)
        content = draft.read_bytes()
    # Named by its content, so that two workers never write different files of one name.
    name = f"{hashlib.sha256(content).hexdigest()[:24]}.tflite"
    write_whole({bench.folder / name: content})
    samples = 0 if few is None else len(few)
    return Outcome(recipe, figures, loss, file=name, samples=samples, error=error)


def _ours(said: warnings.WarningMessage) -> bool:
    return issubclass(said.category, UserWarning) and "needs a runtime" not in str(said.message)
