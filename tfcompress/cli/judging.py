"""Commands that judge .tflite files by what they compute."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .errors import BadInput
from .files import bounded, check_bounds
from .options import (
    FILE,
    as_json,
    importing,
    machine_named,
    on_delegate,
    on_one_target,
    on_python,
    on_threads,
    print_json,
    show,
)

__all__ = ["compare", "evaluate"]


@click.command(
    epilog="Example: tfcompress compare int8.tflite float.tflite --samples x.npz --lsb 4"
)
@click.argument("path", type=FILE)
@click.argument("other", type=FILE)
@click.option("--samples", type=FILE, required=True, help=".npz of samples by input name.")
@bounded
@on_delegate
@on_threads
@as_json
def compare(
    path: Path,
    other: Path,
    samples: Path,
    delegate: str,
    threads: int | None,
    as_json: bool,
    **bounds: float | None,
) -> None:
    """Compare the .tflite file PATH with the .tflite file OTHER on the same samples.

    With bounds it is a check, and fails if any output is beyond one.
    """
    from tfcompress import converters

    found = converters.compare(path, other, samples, delegate, threads)
    show(found, as_json)
    check_bounds(found, bounds)


@click.command(epilog="Example: tfcompress evaluate int8.tflite x.npz y.npy --metric top-5")
@click.argument("path", type=FILE)
@click.argument("x", type=FILE)
@click.argument("y", type=FILE)
@click.option(
    "--metric",
    default="accuracy",
    show_default=True,
    help="accuracy, top-K such as top-5, mean_error, or MODULE:FUNCTION of the output and y.",
)
@click.option("--output", help="Name of the output to judge; default: the only one.")
@on_delegate
@on_threads
@on_one_target
@on_python
@importing
@as_json
def evaluate(
    path: Path,
    x: Path,
    y: Path,
    metric: str,
    output: str | None,
    delegate: str,
    threads: int | None,
    target: str,
    python: str,
    as_json: bool,
) -> None:
    """Measure how well the .tflite file PATH does its task on inputs X, where Y is right.

    X is an .npz file of arrays by input name, or an .npy file; Y an .npy file, or an .npz file of
    one array.
    """
    from tfcompress import edge

    inputs, right = _arrays(x), _arrays(y)
    if isinstance(right, Mapping):
        if len(right) != 1:
            raise BadInput(f"{y} must hold one array. It holds: {sorted(right)}")
        [right] = right.values()
    found = edge.evaluate(
        path,
        inputs,
        right,
        _function(metric) if ":" in metric else metric,
        delegate=delegate,
        threads=threads,
        output=output,
        target=machine_named(target, python),
    )
    if as_json:
        print_json({"path": str(path), "metric": metric, "value": found})
    else:
        share = metric == "accuracy" or metric.startswith("top-")
        click.echo(f"{metric}: {found:.2%}" if share else f"{metric}: {found:.6g}")


def _arrays(path: Path) -> Any:
    """Return the array of an .npy file, or those of an .npz file by name."""
    import numpy as np

    with path.open("rb") as stream:
        try:
            found = np.load(stream, allow_pickle=False)
            return dict(found) if isinstance(found, Mapping) else found
        except (ValueError, OSError, EOFError) as error:
            raise BadInput(f"{path} holds no arrays of NumPy: {error}") from error


def _function(text: str) -> Any:
    """Return the function that MODULE:FUNCTION names, of a module in the current folder, too."""
    module, _, name = text.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise BadInput(f"--metric {text}: there is no such function: {error}") from error
