"""The command that chooses the methods itself: `tfcompress compress`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import BadInput, CheckFailed
from .options import (
    FILE,
    OUTPUT,
    as_json,
    load,
    loading,
    machine_named,
    on_delegate,
    on_one_target,
    on_threads,
    print_json,
    say_written,
    warnings_in_words,
)

if TYPE_CHECKING:
    import keras

__all__ = ["compress"]

_UNITS = {"": 1, "b": 1, "kb": 1000, "mb": 10**6, "kib": 1024, "mib": 2**20}
_EVERY = 5
"""Without --validation, one sample of so many is kept for judging."""


def _size(ctx: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    """Return the bytes that `100kB`, `1.5MB`, `64KiB` or `98304` mean."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([a-zA-Z]*)", text.strip())
    if found is None or found[2].lower() not in _UNITS:
        raise click.BadParameter(f"a size such as 100kB, 1.5MB or 98304. Received: {text!r}")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def _output(ctx: click.Context, parameter: click.Parameter, path: Path) -> Path:
    if path.suffix != ".tflite":
        raise click.BadParameter(f"a file is written as .tflite. Received: {path.name!r}")
    if not path.parent.is_dir():
        raise click.BadParameter(f"the folder {path.parent} does not exist.")
    return path


@click.command(
    epilog="Example: tfcompress compress model.keras --data xy.npz --max-drop 0.01 --size 100kB "
    "-o best.tflite"
)
@click.argument("model", type=FILE)
@click.option(
    "--data", type=FILE, required=True, help=".npz of inputs by name, or x, and targets, y."
)
@click.option(
    "--validation",
    type=FILE,
    help="The same, to judge files by; default: one sample of five of --data.",
)
@click.option("--test", type=FILE, help="The same, for a last figure that nothing is chosen by.")
@click.option(
    "-o", "--output", type=OUTPUT, callback=_output, required=True, help="Write the best file here."
)
@click.option("--size", callback=_size, help="Largest size: 100kB, 1.5MB or a number of bytes.")
@click.option(
    "--latency",
    type=click.FloatRange(0, 1, min_open=True),
    help="Longest time of a run, as a share of the original's.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0),
    help="How much worse the metric may be: 0.01 is a point of accuracy.",
)
@click.option(
    "--minimize",
    type=click.Choice(["bytes", "latency"]),
    help="Go on for --minutes, and make this as small as the bounds allow.",
)
@click.option(
    "--metric",
    type=click.Choice(["accuracy", "mean_squared_error", "mean_absolute_error"]),
    default="accuracy",
    show_default=True,
    help="What files are judged by.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="Time after which nothing new is tried.",
)
@click.option(
    "--storage",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for what is found; a call that was ended goes on from there.",
)
@click.option("--database", help="URL of a database for the study, instead of a file in --storage.")
@click.option(
    "--join", is_flag=True, help="Share the work with what runs with this --storage already."
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Samples in a batch of training.",
)
@click.option("--report", type=OUTPUT, help="Also write a .html report.")
@on_delegate
@on_threads
@on_one_target
@as_json
@loading
def compress(
    model: Path,
    data: Path,
    validation: Path | None,
    test: Path | None,
    output: Path,
    size: int | None,
    latency: float | None,
    max_drop: float | None,
    minimize: str | None,
    metric: str,
    minutes: float,
    storage: Path | None,
    database: str | None,
    join: bool,
    batch_size: int,
    report: Path | None,
    delegate: str,
    threads: int | None,
    target: str,
    as_json: bool,
    unsafe: bool,
) -> None:
    """Make the .keras file MODEL as small and as fast as wanted; the methods are chosen.

    Writes the best file also where the target is missed, and then says by how much and ends with 1.
    """
    import tfcompress as tfc
    from tfcompress.model.tables import new_console

    if join and (storage is None or not storage.is_dir()):
        raise click.UsageError("--join takes the --storage of a call that runs already.")
    if report is not None and report.suffix != ".html":
        raise click.UsageError(f"--report writes .html. Received: {report.name!r}")
    wanted = tfc.Target(size, latency, max_drop, minimize)
    loaded = load(model, unsafe, compiled=True)
    train = _pair(loaded, data)
    judged = _part(train, True) if validation is None else _pair(loaded, validation)
    shown = new_console(stderr=True)

    def progress(result: tfc.Compression) -> None:
        last, best = result.outcomes[-1], result.best.figures
        found = f"{last.figures.bytes:,} bytes" if last.figures else last.why
        shown.print(
            f"{result.seconds:5.0f} of {60 * minutes:.0f} s  best {best.bytes:,} bytes  "
            f"{last.recipe.label()}: {found}"
        )

    with warnings_in_words():
        result = tfc.compress(
            loaded,
            _part(train, False) if validation is None else train,
            judged,
            wanted,
            metric=metric,
            test=None if test is None else _pair(loaded, test),
            device=machine_named(target, "python3"),
            delegate=delegate,
            threads=threads,
            minutes=minutes,
            storage=storage,
            database=database,
            batch_size=batch_size,
            progress=progress,
        )
    result.save(output)
    if report is not None:
        result.report(report)
    if as_json:
        print_json(result.to_dict())
    else:
        new_console().print(result.table)
        say_written(output)
    if not result.met:
        raise CheckFailed(result.why)


def _pair(model: keras.Model, path: Path) -> tuple[dict[str, Any], Any]:
    """Return the inputs by name and the targets in a file."""
    import numpy as np

    from tfcompress.model.samples import load_samples
    from tfcompress.model.signature import signature

    with path.open("rb") as stream:
        file = np.load(stream)
        if not isinstance(file, Mapping) or "y" not in file:
            raise BadInput(f"{path} has no targets: an array named y is needed.")
        y = file["y"]
    x = load_samples(path, signature(model).inputs)
    if len(next(iter(x.values()))) != len(y):
        raise BadInput(f"{path} has {len(next(iter(x.values())))} samples and {len(y)} targets.")
    return x, y


def _part(pair: tuple[dict[str, Any], Any], judged: bool) -> tuple[dict[str, Any], Any]:
    """Return the samples that are kept for judging, or the others."""
    import numpy as np

    x, y = pair
    if len(y) < _EVERY:
        raise BadInput(
            f"--data has {len(y)} samples: too few to keep one of {_EVERY} for judging. Give "
            "--validation."
        )
    rows = (np.arange(len(y)) % _EVERY == _EVERY - 1) == judged
    return {name: array[rows] for name, array in x.items()}, y[rows]
