"""The outputs of a .tflite file on samples."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from tfcompress.converters.file.model import Inspection
from tfcompress.edge import Runner
from tfcompress.edge.arrays import load_arrays, save_arrays
from tfcompress.edge.inputs import as_real
from tfcompress.edge.system.child import Child, ChildFailure
from tfcompress.edge.targets.local import LOCAL
from tfcompress.model.samples import Array, whole_batches

from .errors import ConversionError


class RunFile(Protocol):
    """Runs a file on samples: see `file_runner`."""

    def __call__(self, path: Path, samples: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs by name."""
        ...


@contextlib.contextmanager
def file_runner(batch: int | None, timeout: float | None) -> Iterator[RunFile]:
    """Run files in a child process, which starts with the first of them.

    Args:
        batch: Samples that the files take at once; None for any number.
        timeout: Seconds for each file; None for no limit.

    Yields:
        A function that takes the path of a file and arrays by input name. It returns the outputs by
        name, none if the file took too long, and raises ConversionError if the runtime fails on it.
    """
    child: Child | None = None

    def run(path: Path, samples: Mapping[str, Array]) -> dict[str, Array]:
        nonlocal child
        count = len(next(iter(samples.values())))
        filled = whole_batches(samples, batch or 1)
        inputs, out = path.with_suffix(".inputs.npz"), path.with_suffix(".outputs.npz")
        save_arrays(inputs, list(filled.values()))
        child = child or started.enter_context(LOCAL.session([])).child
        try:
            reply = child.request(
                "outputs",
                timeout,
                path=os.fspath(path),
                inputs=os.fspath(inputs),
                names=list(filled),
                out=os.fspath(out),
            )
        except ChildFailure as failure:
            child = None  # it may have been killed
            if failure.status == "timeout":
                return {}
            raise ConversionError(
                f"The runtime loads the file, but fails on samples: {failure.reason}. Try "
                "batch_size=1, other samples or another precision."
            ) from failure
        found = zip(reply["names"], load_arrays(out), strict=True)
        return {name: array[:count] for name, array in found}

    with contextlib.ExitStack() as started:
        yield run


def runner_outputs(
    runner: Runner, samples: Mapping[str, Array], batch_size: int
) -> dict[str, Array]:
    """Run a file that is loaded on samples of real numbers.

    Args:
        runner: The file.
        samples: Arrays by input name.
        batch_size: Samples in a run, where the file takes any number.

    Returns:
        The outputs by name, with as many rows as there are samples.
    """
    count = len(next(iter(samples.values())))
    shape = runner.inputs[0].shape
    fixed = shape[0] if shape else 1
    real = as_real(whole_batches(samples, fixed or 1), runner.inputs)
    outputs = runner.named(real, batch_size=None if fixed else batch_size)
    return {name: np.asarray(value)[:count] for name, value in outputs.items()}


def output_scales(found: Inspection, key: str | None = None) -> dict[str, float]:
    """Return the step of every quantized output, also of one that the file dequantizes.

    Args:
        found: The file.
        key: Name of the signature. Defaults to None, the first.

    Returns:
        Name of the output -> its step.
    """
    signatures = [s for s in found.signatures if key in (None, s.key)]
    producers = {node.outputs[0]: node for node in found.nodes if node.op == "DEQUANTIZE"}
    scales = {}
    for name, place in signatures[0].outputs.items() if signatures else ():
        tensor = found.tensors[place]
        if place in producers:
            tensor = found.tensors[producers[place].inputs[0]]
        if len(tensor.scales) == 1:
            scales[name] = tensor.scales[0]
    return scales
