"""`compress`: say how small, how fast and how good a model must be; the methods are found."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from tfcompress import edge
from tfcompress.edge.arguments import (
    LONGEST,
    check_batch_size,
    check_choice,
    check_function,
    check_integer,
    check_number,
    check_path,
    check_text,
    check_threads,
    refuse,
)
from tfcompress.edge.engines.base import DELEGATES
from tfcompress.edge.targets.base import check_target
from tfcompress.model.checks import check_built, check_finite
from tfcompress.model.signature import signature

from .baseline import measure_baseline
from .data import Examples, check_data, examples
from .measure import Device, outputs_of
from .metrics import check_metric
from .recipe import Outcome
from .result import Best, Compression
from .search import confirm, decide
from .stops import CannotGoOn
from .study import Study, quiet
from .target import Target, rank
from .training import FineTune, TimeUp, Training, digest, rungs_of
from .verdict import CANNOT, TIME_UP
from .workbench import Workbench, try_recipe

__all__ = ["compress"]

_CALIBRATION = 200
_PATIENCE = 1.0
"""Seconds between two looks at what other workers do."""


class _Temporary:
    """A folder that is removed with the last result that needs it."""

    def __init__(self) -> None:
        self.name = tempfile.mkdtemp("-tfcompress-compress")
        weakref.finalize(self, shutil.rmtree, self.name, ignore_errors=True)


def compress(
    model: keras.Model,
    train: Any,
    validation: Any,
    target: Target,
    *,
    metric: str | Callable[[Any, Any], float] = "accuracy",
    higher_is_better: bool | None = None,
    test: Any = None,
    device: edge.Target = edge.Local(),  # noqa: B008 - frozen
    delegate: str = "xnnpack",
    threads: int | None = None,
    fine_tune: FineTune | None = None,
    batch_size: int = 32,
    minutes: float = 30.0,
    trials: int | None = None,
    storage: str | os.PathLike[str] | None = None,
    database: str | None = None,
    seed: int = 0,
    progress: Callable[[Compression], object] | None = None,
) -> Compression:
    """Make a model as small and as fast as a target says, at the accuracy that it says.

    The original is measured first, as a float32 file. Then come the ways that need no training:
    float16, dynamic int8, int8, weights in 4 bits. If they meet the target, that is all. Else
    channels are cut, weights pruned or kernels made of low rank. What fits by its untrained cost is
    trained on by distillation from the original: all of it a little, the best third more, and so
    forth. Quantization-aware training comes in where int8 loses more than is allowed.

    Every figure is measured on the .tflite file: bytes as it ships, the metric on its outputs over
    the validation data, and latency on the device, in turns with the original. Where there are more
    than 500 validation samples, untrained files are judged by 500 of them first, and those that may
    be the best by all; the best always is. There is always a
    result: if the target is missed, it is the closest file, and `why` says what is missing.

    >>> from tfcompress.planner.target import Target
    >>> compress("model.keras", None, None, Target(accuracy_drop=0.01))
    Traceback (most recent call last):
    ...
    TypeError: Expected a keras.Model. Received: 'model.keras' of type str. If it is a file, ...

    Args:
        model: A built and trained model, which stays as it is.
        train: What the model was trained on: `(x, y)`, arrays or dicts of arrays with the samples
            first, or a `tf.data.Dataset` or `keras.utils.PyDataset` of such batches. Some of it
            calibrates int8, and changed models are trained on all of it.
        validation: What files are judged by, in the same forms. None of it is trained on.
        target: What is wanted.
        metric: "accuracy", "mean_squared_error" or "mean_absolute_error"; or a function of the
            outputs of the file (an array, or a dict by name if there are several) and the targets,
            which gives a number. Defaults to "accuracy".
        higher_is_better: For a function, whether a high value is good. Defaults to None, True.
        test: Data that have no part in any choice, in the forms of `train`. The metric of the best
            file and of the original is computed on them at the end. Defaults to None.
        device: The machine that latencies are measured on. Defaults to `edge.Local()`, this one.
        delegate: What runs the ops: "xnnpack", "reference" or "gpu". Defaults to "xnnpack".
        threads: Number of CPU threads. Defaults to None, the runtime's default, one.
        fine_tune: Function of a changed model and a number of epochs, which trains it in place, for
            training loops of your own. Nothing is pruned to zeros then. Defaults to None: `fit`,
            with the optimizer and the loss that the model was compiled with.
        batch_size: Samples in a batch, if `train` are arrays. Defaults to 32.
        minutes: Time after which nothing new is tried. Defaults to 30.
        trials: Largest number of trials, those in the storage included. Defaults to None, any.
        storage: Folder for files, trained models and the study. A call with the storage of an
            earlier one, that was killed or ended, goes on with what is there; a call at the same
            time shares the work. Defaults to None, a temporary one that is removed with the result.
        database: URL of a database for the study, as SQLAlchemy takes it, such as
            "postgresql://user@host/name", which needs psycopg or psycopg2: for workers on several
            machines that share `storage` over NFS, where the study's own journal file would be
            damaged. Defaults to None, the journal.
        seed: Seed of the order of the batches. Defaults to 0.
        progress: Called with the result so far after each trial; `print` will do. Defaults to None.

    Returns:
        The best file, whether it meets the target, all that was tried, and why.

    Raises:
        TypeError: `model` is no Keras model, or an argument has a wrong type.
        ValueError: An argument has a wrong value; the data do not fit the model, or hold NaN; the
            float32 file does not compute what Keras does; or the model is no better than chance.
        ModelRefused: The device cannot run the float32 file.
        ConversionError: The model cannot be converted at all.
        ImportError: Optuna, which keeps the study, is not installed, or the driver of the database.
        ConnectionError: The database does not answer, or refuses.
    """
    start = time.monotonic()
    again = functools.partial(
        compress, model, train, validation, target, metric=metric,
        higher_is_better=higher_is_better, test=test, device=device, delegate=delegate,
        threads=threads, fine_tune=fine_tune, batch_size=batch_size, trials=trials,
        database=database, seed=seed, progress=progress,
    )  # fmt: skip
    check_finite(check_built(model))
    if not model.weights:
        raise ValueError(f"The model {model.name!r} has no weights: there is nothing to compress.")
    if not isinstance(target, Target):
        refuse("target", "a Target, such as Target(bytes=100_000)", target, TypeError)
    for name, data in (("train", train), ("validation", validation)):
        check_data(name, data)
    if test is not None:
        check_data("test", test)
    measured = check_metric(metric, higher_is_better)
    check_target(device)
    check_choice("delegate", delegate, DELEGATES.names())
    check_threads(threads)
    if fine_tune is not None:
        check_function("fine_tune", fine_tune, "model", "epochs")
    check_batch_size(batch_size)
    end = start + 60 * check_number("minutes", minutes, above=0, most=LONGEST / 60)
    if trials is not None:
        check_integer("trials", trials, 1)
    if database is not None and "://" not in check_text("database", database):
        refuse("database", "a URL such as postgresql://user@host/name", database)
    check_integer("seed", seed, 0)
    if progress is not None:
        check_function("progress", progress, "result")
    if storage is not None and check_path("storage", storage).is_file():
        refuse("storage", "a folder", storage)
    kept = None if storage is not None else _Temporary()
    folder = check_path("storage", storage) if kept is None else Path(kept.name)
    folder.mkdir(parents=True, exist_ok=True)

    inputs = signature(model).inputs
    judged = examples("validation", validation, inputs)
    unseen = None if test is None else examples("test", test, inputs)
    samples = examples("train", train, inputs, _CALIBRATION).x
    place = Device(device, delegate, threads)
    trainable = fine_tune is not None or getattr(model, "optimizer", None) is not None
    rungs = rungs_of(train, batch_size) if trainable else ()
    settings = (measured.name, device.name, delegate, threads, rungs, batch_size, seed)
    # A data set may give other batches each time.
    seen = samples if isinstance(train, tuple) else ()
    context = digest(model, seen, judged.x, judged.y, settings=settings)
    with quiet():
        study = Study(context, folder, database)
        baseline = measure_baseline(model, judged, measured, place, folder / f"{context}.tflite")
        training = Training(
            model, train, samples, batch_size, rungs, fine_tune, folder, context, seed, end
        )
        bench = Workbench(
            model, samples, judged, measured, place, target, baseline, folder, training
        )

        def so_far(ended: str) -> Compression:
            try:
                outcomes = study.outcomes()
            except CannotGoOn:
                outcomes = study.known
            return Compression(
                target,
                baseline.figures,
                best_of(bench, outcomes),
                tuple(outcomes),
                time.monotonic() - start,
                ended,
                bench=bench,
                _kept=kept,
                _again=functools.partial(again, storage=folder),
            )

        try:
            ended = work(bench, study, trials, lambda: progress and progress(so_far("")))
        except CannotGoOn as stop:
            ended = f"{CANNOT} as {stop}"
        except KeyboardInterrupt:
            ended = "it was interrupted"  # what was found so far is the answer
        found = so_far(ended)
    return found if unseen is None else with_test(found, unseen)


def work(bench: Workbench, study: Study, trials: int | None, tell: Callable[[], object]) -> str:
    """Try one recipe after the other, until there is nothing to try or the time is up.

    Args:
        bench: The original, the data, and what is measured how.
        study: What was tried, and what is being tried.
        trials: Largest number of trials; None for any.
        tell: Called after each trial.

    Returns:
        Why it ended.

    Raises:
        CannotGoOn: The disk is full, or the device or the database went away.
    """
    training, original, ended = bench.training, bench.baseline.figures, ""
    while True:
        running = study.running()  # first: it gives back what dead workers had
        outcomes = study.outcomes()
        if time.monotonic() >= training.end:
            ended = TIME_UP
        elif trials is not None and len(outcomes) >= trials:
            ended = f"{trials} trials were allowed"
        decision = (
            # The best is measured on all data, also where nothing new is tried any more.
            confirm(outcomes, running, bench.target, original)
            if ended
            else decide(
                outcomes, running, bench.target, original, training.rungs,
                training.fine_tune is None,
            )
        )  # fmt: skip
        if decision.wait:
            time.sleep(_PATIENCE)
        elif decision.recipe is None:
            return decision.why or ended
        else:
            with (
                contextlib.suppress(TimeUp),
                study.claim(decision.recipe, decision.confirms) as claim,
            ):
                if claim is not None:
                    claim.outcome = try_recipe(bench, claim.recipe, claim.estimate)
            tell()


def with_test(found: Compression, unseen: Examples) -> Compression:
    """Return a result with the metric of the best file and of the original on unseen data."""
    bench = found.bench

    def score(path: Path) -> float:
        return bench.metric(outputs_of(path, unseen.x, "xnnpack"), unseen.y)

    best = dataclasses.replace(found.best, test=score(found.best.file))
    return dataclasses.replace(found, best=best, original_test=score(bench.baseline.file))


def best_of(bench: Workbench, outcomes: list[Outcome]) -> Best:
    """Return the file that meets the target best; the original if nothing is closer."""
    original = Best(bench.baseline.file, "nothing", bench.baseline.figures, 0.0)
    found = [
        Best(bench.folder / o.file, o.recipe.label(), o.figures, o.loss, outcome=o)
        for o in outcomes
        if o.figures is not None and not o.samples and (bench.folder / o.file).exists()
    ]
    return min([original, *found], key=lambda best: rank(bench.target, best.figures, best.loss))
