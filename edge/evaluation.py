"""`evaluate`: how well a .tflite file does its task."""

import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .arguments import check_function, check_text, check_threads, refuse
from .runner import Runner
from .system import tflite
from .targets.base import Target, check_target
from .targets.local import LOCAL
from .tensors import Array

Metric = str | Callable[[Any, Any], float]

_BATCH = 64


def evaluate(
    path: str | os.PathLike[str],
    x: Any,
    y: Any,
    metric: Metric = "accuracy",
    *,
    delegate: str = "xnnpack",
    threads: int | None = None,
    output: str | None = None,
    target: Target = LOCAL,
) -> float:
    """Measure how well a .tflite file does its task, from its own outputs.

    The file runs in a child process, in batches where it takes any.

    >>> import numpy as np
    >>> from tfcompress import edge
    >>> from tfcompress.edge.system.tflite import PROBE  # adds 1 to rows of four numbers
    >>> x = np.eye(4, dtype="float32")
    >>> edge.evaluate(PROBE, x, [0, 1, 2, 0])
    0.75
    >>> edge.evaluate(PROBE, x, x, "mean_error")
    1.0

    Args:
        path: The .tflite file.
        x: Inputs: one array, a sequence of arrays in the order of `Runner.inputs`, or a dict by
            input name, each with the samples first.
        y: What is right: for `"accuracy"` and `"top-K"` a class for each sample, `(n,)` integers,
            or one-hot rows `(n, classes)`; for `"mean_error"` an array like the output; for a
            function whatever it takes.
        metric: `"accuracy"`; `"top-K"`, such as `"top-5"`, the share of samples with the right
            class among the K highest; `"mean_error"`, the mean absolute difference; or a function
            of the output and `y` that returns a number. Defaults to `"accuracy"`.
        delegate: `"xnnpack"`, `"reference"` or `"gpu"`. Defaults to `"xnnpack"`.
        threads: Number of CPU threads; None takes the runtime's default, which is one. Defaults to
            None.
        output: Name of the output to judge; None takes the only one, or gives a function all of
            them as a dict by name. Defaults to None.
        target: The machine to run the file on. Defaults to `Local()`, this one.

    Returns:
        The metric: shares from 0 to 1, errors in the output's unit.

    Raises:
        ModelFileError: The file is missing, corrupt, or no .tflite file.
        ModelRefused: The runtime cannot run the file, or died of it.
        TypeError: An argument has the wrong type.
        ValueError: `metric` or `output` is unknown, or `x` or `y` does not fit the file.
        OSError: The target cannot be reached.
    """
    if isinstance(metric, str):
        top = _top(metric)
    else:
        check_function("metric", metric, "output", "y")
    threads = check_threads(threads)
    if output is not None:
        check_text("output", output)
    check_target(target)
    file = tflite.check(path)
    with Runner(file, delegate, threads, isolated=True, target=target) as runner:
        known = [info.name for info in runner.outputs]
        if output is not None and output not in known:
            refuse("output", f"one of {known}", output)
        if output is None and len(known) > 1 and isinstance(metric, str):
            refuse("output", f"one of {known}, as {file} has several", output)
        found = runner.named(x, batch_size=_BATCH if _takes_any(runner) else None)
    chosen = found[output or known[0]] if output or len(known) == 1 else found
    if callable(metric):
        return float(metric(chosen, y))
    values = np.asarray(chosen)
    if top is None:
        return _mean_error(values, np.asarray(y))
    return _top_share(values, np.asarray(y), top)


def _top(metric: str) -> int | None:
    """Return K of a top-K metric, 1 for accuracy, None for the mean error."""
    if metric == "mean_error":
        return None
    found = re.fullmatch(r"accuracy|top-([1-9]\d{0,5})", metric)
    if not found:
        refuse("metric", "accuracy, top-K such as top-5, mean_error, or a function", metric)
    return int(found[1] or 1)


def _takes_any(runner: Runner) -> bool:
    return all(info.shape and info.shape[0] is None for info in runner.inputs)


def _mean_error(values: Array, y: Array) -> float:
    if values.shape != y.shape or y.dtype.kind not in "biuf":
        refuse("y", f"numbers of the output's shape, {values.shape}", y)
    return float(np.mean(np.abs(values.astype(np.float64) - y)))


def _top_share(values: Array, y: Array, top: int) -> float:
    rows = len(values)
    if values.ndim != 2 or values.shape[1] < 2:
        raise ValueError(
            f"`metric` of this output, of shape {values.shape}, must be mean_error or a function: "
            "it has no row of classes for each sample"
        )
    if y.shape == values.shape:
        y = y.argmax(axis=1)
    y = y.reshape(rows) if y.shape == (rows, 1) else y
    fits = y.shape == (rows,) and y.dtype.kind in "biu"
    if not fits or np.any((y < 0) | (y >= values.shape[1])):
        refuse("y", f"a class from 0 to {values.shape[1] - 1} for each of {rows} samples", y)
    # The first of equal values wins, as with argmax.
    highest = np.argsort(-values.astype(np.float64), axis=1, kind="stable")[:, :top]
    return float(np.mean(np.any(highest == y[:, None], axis=1)))
