"""Commands that make .tflite files, check them against their models, and measure them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .errors import CheckFailed
from .options import (
    FILE,
    OUTPUT,
    Command,
    as_json,
    importing,
    load,
    loading,
    on_benchmark_model,
    on_delegate,
    on_measured_delegate,
    on_python,
    on_target,
    on_threads,
    say_written,
    show,
)

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from tfcompress import edge
    from tfcompress.converters import Verification

__all__ = ["bench", "bounded", "c_array", "check_bounds", "demo", "sparsify", "split", "verify"]

BOUNDS = {
    "lsb": "Largest error, in steps of a quantized output.",
    "mean_lsb": "Largest mean error, in steps of a quantized output.",
    "max_error": "Largest absolute error.",
    "mean_error": "Largest mean absolute error.",
    "snr_below": "Smallest signal-to-noise ratio, in dB.",
    "cosine_below": "Smallest cosine between the outputs.",
    "top1_below": "Smallest share of samples with the same best class, 0 to 1.",
    "r2_below": "Smallest share of its variation that a channel of an output keeps, at most 1.",
}


def bounded(command: Command) -> Command:
    """Add an option for each bound of `Verification.raise_if_above`."""
    for name, text in reversed(BOUNDS.items()):
        command = click.option(f"--{name.replace('_', '-')}", type=float, help=text)(command)
    return command


def check_bounds(found: Verification, bounds: Mapping[str, float | None]) -> None:
    """Fail if any output is beyond a bound that was given."""
    from tfcompress import converters

    if any(bound is not None for bound in bounds.values()):
        try:
            found.raise_if_above(**bounds)
        except converters.VerificationError as error:
            raise CheckFailed(str(error)) from error


@click.command(epilog="Example: tfcompress demo --out my-demo")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("tfcompress-demo"),
    show_default=True,
    help="Folder for the .tflite files and the report.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of data, weights, batches.")
def demo(out: Path, seed: int) -> None:
    """Do the whole job on real data: train, prune, convert, verify, measure, report."""
    from rich.console import Console

    from tfcompress import converters
    from tfcompress.lazy import greeting_silenced

    with greeting_silenced():
        from tfcompress.demo import demo as run

    console = Console()
    try:
        report = run(out, seed=seed, console=console)
    except (converters.ConversionError, converters.VerificationError) as error:
        raise CheckFailed(str(error)) from error
    console.print(report.table())
    console.print(f"Open {out / 'report.html'}. Beside it: report.json, report.md, .tflite files.")
    _check_all_ran(report)


@click.command(epilog="Example: tfcompress sparsify pruned.tflite small.tflite")
@click.argument("path", type=FILE)
@click.argument("out", type=OUTPUT)
@click.option(
    "--int8-weights", is_flag=True, help="Store float weights as int8; they compute in float."
)
@click.option("--no-names", is_flag=True, help="Leave out the names of the tensors.")
@as_json
def sparsify(path: Path, out: Path, int8_weights: bool, no_names: bool, as_json: bool) -> None:
    """Write the .tflite file PATH again, as OUT: smaller, above all if it was pruned.

    OUT computes the same, bit for bit, or is not written. With --int8-weights, it computes the same
    as PATH with rounded weights.
    """
    from tfcompress import converters

    config = converters.Sparse(int8_weights=int8_weights, names=not no_names)
    try:
        found = converters.sparsify(path, out, config)
    except converters.ConversionError as error:
        raise CheckFailed(str(error)) from error
    show(found, as_json)


@click.command(epilog="Example: tfcompress split big.tflite 1.tflite 2.tflite --link 400e6")
@click.argument("path", type=FILE)
@click.argument("first", type=OUTPUT)
@click.argument("second", type=OUTPUT)
@click.option("--at", type=int, help="Number of ops in FIRST. Default: where it pays most.")
@click.option("--link", type=float, help="Bytes per second between the devices.")
@on_threads
@as_json
def split(
    path: Path,
    first: Path,
    second: Path,
    at: int | None,
    link: float | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Cut the .tflite file PATH into FIRST and SECOND, for two devices that work in turn.

    The two compute what PATH does, bit for bit, or are not written.
    """
    from tfcompress import converters

    try:
        place = "auto" if at is None else at
        found = converters.split(path, first, second, place, link=link, threads=threads)
    except converters.ConversionError as error:
        raise CheckFailed(str(error)) from error
    show(found, as_json)


@click.command("c-array", epilog="Example: tfcompress c-array int8.tflite model.cc")
@click.argument("path", type=FILE)
@click.argument("out", type=OUTPUT)
def c_array(path: Path, out: Path) -> None:
    """Write the .tflite file PATH as C++ source OUT and its header, for TensorFlow Lite Micro."""
    from tfcompress import converters

    try:
        written = converters.to_c_array(path, out)
    except converters.ConversionError as error:
        raise CheckFailed(str(error)) from error
    for file in written:
        say_written(file)


@click.command(epilog="Example: tfcompress verify model.keras model.tflite --samples x.npz --lsb 4")
@click.argument("model", type=FILE)
@click.argument("path", type=FILE)
@click.option("--samples", type=FILE, required=True, help=".npz of samples by input name.")
@click.option("--by-layer", is_flag=True, help="Compare the output of each layer, too.")
@click.option("--signature", help="Signature to run, such as serving_128; default: the first.")
@bounded
@on_delegate
@on_threads
@as_json
@loading
def verify(
    model: Path,
    path: Path,
    samples: Path,
    by_layer: bool,
    signature: str | None,
    delegate: str,
    threads: int | None,
    as_json: bool,
    unsafe: bool,
    **bounds: float | None,
) -> None:
    """Compare the .tflite file PATH with the .keras file MODEL on the same samples.

    With bounds it is a check, and fails if any output is beyond one.
    """
    from tfcompress import converters

    found = converters.verify(
        load(model, unsafe), path, samples, delegate, threads, by_layer=by_layer,
        signature=signature,
    )  # fmt: skip
    show(found, as_json)
    check_bounds(found, bounds)


@click.command(epilog="Example: tfcompress bench dense.tflite small.tflite --report report.html")
@click.argument("paths", type=FILE, nargs=-1, required=True)
@on_measured_delegate
@on_threads
@click.option(
    "--runs", type=click.IntRange(1), default=50, show_default=True, help="Least runs of a file."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Least seconds that the runs of a file take together.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=120.0,
    show_default=True,
    help="Seconds in which a file must load, or finish a tenth of its runs.",
)
@click.option("--signature", help="Signature to run, such as decode; default: the first.")
@click.option("--report", type=OUTPUT, help="Also write a .html, .md or .json report.")
@on_target
@on_python
@on_benchmark_model
@importing
@as_json
def bench(
    paths: tuple[Path, ...],
    delegate: str,
    threads: int | None,
    runs: int,
    seconds: float,
    timeout: float,
    signature: str | None,
    report: Path | None,
    targets: tuple[str, ...],
    python: str,
    benchmark_model: str,
    as_json: bool,
) -> None:
    """Measure size, latency and memory of .tflite files; speed-ups are over the first.

    On several targets, one after the other, they are over the first file on the same target.
    `tfcompress targets` says which there are.
    """
    from rich.console import Console
    from rich.progress import Progress

    from tfcompress import edge
    from tfcompress.edge.reports.report import check_report_path
    from tfcompress.edge.targets.names import target_named

    if report is not None:
        check_report_path(report)
    results: list[edge.BenchmarkResult] = []
    with Progress(console=Console(stderr=True), transient=True, disable=as_json) as progress:
        for name in dict.fromkeys(targets):
            task = progress.add_task(f"Measure on {name}", total=None)
            results += edge.benchmark(
                list(paths),
                delegate,
                threads,
                min_runs=runs,
                min_seconds=seconds,
                timeout=timeout,
                signature=signature,
                target=target_named(name, python, benchmark_model),
                progress=partial(_show, progress, task),
            )
    found = edge.Report(results)
    if as_json:
        click.echo(found.to_json(), nl=False)
    else:
        Console().print(found.table())
        for note in _slow_attention(results):
            click.echo(note)
    if report is not None:
        found.save(report)
    _check_all_ran(found)


def _show(progress: Progress, task: TaskID, done: int, total: int) -> None:
    progress.update(task, completed=done, total=total)


def _slow_attention(results: Sequence[edge.BenchmarkResult]) -> list[str]:
    """Say of each file with attention in int8 that ran on XNNPACK what was faster there."""
    from tfcompress.converters.file.read import inspect
    from tfcompress.converters.hybrid import attention_share, speed_notes

    said = []
    for result in results:
        if result.delegate != "xnnpack" or not result.ok or not result.median_ms:
            continue
        found = inspect(result.path)
        if not attention_share(found):
            continue
        faster = [
            f"{other.name} ran {result.median_ms / other.median_ms:.1f}x as fast"
            for other in results
            if other.target == result.target and other.median_ms
            and other.median_ms < result.median_ms
        ]  # fmt: skip
        on = f" on {result.target}: {', '.join(faster)}" if faster else ""
        said += [f"{result.name}{on}. {note}" for note in speed_notes(found)]
    return list(dict.fromkeys(said))


def _check_all_ran(report: edge.Report) -> None:
    failed = [f"{r.name}: {r.status}: {r.reason}" for r in report.results if not r.ok]
    if failed:
        raise CheckFailed("; ".join(failed))
