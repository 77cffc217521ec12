"""`compare`: two .tflite files on the same samples, without Keras."""

from __future__ import annotations

import os
from typing import Any

from tfcompress.converters.file.read import inspect
from tfcompress.edge import Runner
from tfcompress.edge.arguments import check_choice, check_path, check_threads
from tfcompress.edge.engines.base import DELEGATES
from tfcompress.edge.system.tflite import check
from tfcompress.model.samples import Array, InputSpec, load_samples

from . import output_error
from .file_outputs import output_scales, runner_outputs
from .hybrid import speed_notes
from .verified import Verification

__all__ = ["compare"]

_BATCH = 32


def compare(
    path: str | os.PathLike[str],
    other: str | os.PathLike[str],
    samples: Any,
    delegate: str = "xnnpack",
    threads: int | None = None,
) -> Verification:
    """Compare the outputs of two .tflite files on the same samples.

    Each file runs in a child process. Inputs and outputs are matched by name; where a file has one,
    its name may differ. Keras and TensorFlow are not needed.

    >>> import numpy as np
    >>> from tfcompress import converters
    >>> from tfcompress.edge.system.tflite import PROBE  # adds 1 to rows of four numbers
    >>> converters.compare(PROBE, PROBE, np.eye(4, dtype="float32")).outputs[0].max_error
    0.0

    Args:
        path: The file to judge, such as an int8 one.
        other: The file to compare it with, such as the float one.
        samples: An array (for one input), a dict of arrays by input name, a generator of either, or
            the path of an .npz file.
        delegate: "xnnpack", "reference" or "gpu", for both files. Defaults to "xnnpack".
        threads: CPU threads. Defaults to None, the choice of the runtime.

    Returns:
        The errors of each output, in steps of the first file where that is quantized.

    Raises:
        ModelFileError: There is no readable .tflite file.
        ModelRefused: The runtime cannot run a file, or died of it.
        ValueError: The samples do not fit, or the files have other inputs or outputs.
    """
    check_choice("delegate", delegate, DELEGATES.names())
    check_threads(threads)
    files = check(path), check(check_path("other", other))
    with (
        Runner(files[0], delegate, threads, isolated=True) as judged,
        Runner(files[1], delegate, threads, isolated=True) as reference,
    ):
        arrays = load_samples(samples, _specs(reference))
        expected, actual = _outputs(reference, arrays), _outputs(judged, arrays)
    if len(expected) == len(actual) == 1:
        actual = dict(zip(expected, actual.values(), strict=True))
    if {n: a.shape for n, a in expected.items()} != {n: a.shape for n, a in actual.items()}:
        raise ValueError(
            f"{files[0]} and {files[1]} have other outputs: "
            f"{ {n: a.shape for n, a in actual.items()} } and "
            f"{ {n: a.shape for n, a in expected.items()} }"
        )
    found = inspect(path)
    scales = output_scales(found)
    if len(expected) == len(scales) == 1:
        scales = dict(zip(expected, scales.values(), strict=True))
    errors = tuple(
        output_error.compare(name, value, actual[name], scales.get(name))
        for name, value in expected.items()
    )
    count = len(next(iter(arrays.values())))
    notes = speed_notes(found) if delegate == "xnnpack" else ()
    return Verification(files[0], delegate, count, errors, against=files[1].name, notes=notes)


def _specs(runner: Runner) -> list[InputSpec]:
    """Return what samples must be: real numbers for an input that is quantized."""
    return [
        InputSpec(info.name, info.shape, "float32" if info.quantized else info.dtype.name)
        for info in runner.inputs
    ]


def _outputs(runner: Runner, arrays: dict[str, Array]) -> dict[str, Array]:
    names = [info.name for info in runner.inputs]
    if len(names) == len(arrays) == 1:
        arrays = dict(zip(names, arrays.values(), strict=True))
    if set(names) != set(arrays):
        raise ValueError(
            f"{runner.path} takes the inputs {names}, the other file {sorted(arrays)}: they cannot "
            "be compared"
        )
    return runner_outputs(runner, arrays, _BATCH)
