"""Commands that make .tflite files, check them against their models, and measure them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import CheckFailed
from .options import (
    FILE,
    OUTPUT,
    Command,
    Registered,
    as_json,
    importing,
    load,
    loading,
    on_delegate,
    on_runtime,
    on_target,
    on_threads,
    print_json,
    show,
    warnings_in_words,
)

if TYPE_CHECKING:
    from tfcompress import converters, edge

__all__ = ["bench", "convert", "demo", "sparsify", "verify"]

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


def precisions() -> dict[str, type[converters.Precision]]:
    """Return the registered precisions by name."""
    from tfcompress.converters.precisions.registry import registered_precisions

    return registered_precisions()


def make_precision(name: str, strict: bool, **options: Any) -> converters.Precision:
    """Return a precision with the options that were given, or fail if it does not have them."""
    registered = precisions()
    given = {option: value for option, value in options.items() if value is not None}
    takers = {
        option: [n for n, cls in registered.items() if option in _fields(cls)] for option in given
    }
    if strict:
        takers["strict"] = [n for n, cls in registered.items() if cls.integer]
    for option, names in takers.items():
        if name not in names:
            raise click.UsageError(f"--{option} goes with --precision {' or '.join(names)}.")
    return registered[name](**given)


def _fields(precision: type[converters.Precision]) -> set[str]:
    return {field.name for field in dataclasses.fields(precision)}


def bounded(command: Command) -> Command:
    """Add an option for each bound of `Verification.raise_if_above`."""
    for name, text in reversed(BOUNDS.items()):
        command = click.option(f"--{name.replace('_', '-')}", type=float, help=text)(command)
    return command


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


@click.command(epilog="Example: tfcompress convert model.keras model.tflite -p int8 -c samples.npz")
@click.argument("model", type=FILE)
@click.argument("path", type=OUTPUT)
@click.option(
    "-p",
    "--precision",
    type=Registered(precisions),
    default="float32",
    show_default=True,
    help="What weights and activations are stored and computed in: float32, float16, dynamic_int8, "
    "int8, or one that a module given with --import registers.",
)
@click.option(
    "-c",
    "--calibration",
    type=FILE,
    help=".npz of samples by input name, such as for -p int8; a quantization-aware model needs "
    "none.",
)
@click.option(
    "--io",
    help="Type that an int8 file takes and gives: float32, int8 or uint8; default: float32.",
)
@click.option(
    "--equalize",
    is_flag=True,
    default=None,
    help="First move scales between layers, so that the channels of a tensor are as large as each "
    "other.",
)
@click.option("--batch-size", type=click.IntRange(1), help="Fixed batch; default: any.")
@click.option("--strict", is_flag=True, help="Fail if an integer file keeps float ops inside.")
@click.option(
    "--sparse", is_flag=True, help="Store zeros in fewer bytes, as `tfcompress sparsify` does."
)
@on_runtime
@as_json
@loading
def convert(
    model: Path,
    path: Path,
    precision: str,
    calibration: Path | None,
    io: str | None,
    equalize: bool | None,
    batch_size: int | None,
    strict: bool,
    sparse: bool,
    runtime: str | None,
    as_json: bool,
    unsafe: bool,
) -> None:
    """Write the .keras file MODEL as the .tflite file PATH."""
    from tfcompress import converters

    chosen = make_precision(precision, strict, calibration=calibration, io=io, equalize=equalize)
    loaded = load(model, unsafe)
    try:
        with warnings_in_words():
            written = converters.convert(
                loaded, path, chosen, batch_size=batch_size, strict=strict, sparse=sparse,
                runtime=runtime,
            )  # fmt: skip
    except converters.ConversionError as error:
        raise CheckFailed(str(error)) from error
    left = [str(op) for op in (*written.float_macs, *written.float_casts)]
    if as_json:
        found = {
            "path": str(path),
            "bytes": written.bytes,
            "gzip_bytes": written.gzip_bytes,
            "float_ops": left,
            "kept_float": list(written.kept_float),
        }
        print_json({**found, "sparse": written.sparse.to_dict()} if written.sparse else found)
        return
    click.echo(f"Wrote {path}: {written.bytes:,} bytes ({written.gzip_bytes:,} after gzip).")
    if written.sparse:
        show(written.sparse, as_json)
    if left:
        click.echo(f"Still in float: {', '.join(left)}.")
    if written.kept_float:
        click.echo(f"Kept in float, as int8 would ruin it: {', '.join(written.kept_float)}.")


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


@click.command(epilog="Example: tfcompress verify model.keras model.tflite --samples x.npz --lsb 4")
@click.argument("model", type=FILE)
@click.argument("path", type=FILE)
@click.option("--samples", type=FILE, required=True, help=".npz of samples by input name.")
@click.option("--by-layer", is_flag=True, help="Compare the output of each layer, too.")
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
        load(model, unsafe), path, samples, delegate=delegate, threads=threads, by_layer=by_layer
    )
    show(found, as_json)
    if any(bound is not None for bound in bounds.values()):
        try:
            found.raise_if_above(**bounds)
        except converters.VerificationError as error:
            raise CheckFailed(str(error)) from error


@click.command(epilog="Example: tfcompress bench dense.tflite small.tflite --report report.html")
@click.argument("paths", type=FILE, nargs=-1, required=True)
@on_delegate
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
@click.option("--report", type=OUTPUT, help="Also write a .html, .md or .json report.")
@on_target
@importing
@as_json
def bench(
    paths: tuple[Path, ...],
    delegate: str,
    threads: int | None,
    runs: int,
    seconds: float,
    timeout: float,
    report: Path | None,
    target: str,
    as_json: bool,
) -> None:
    """Measure size, latency and memory of .tflite files; speed-ups are over the first."""
    from rich.console import Console
    from rich.progress import Progress

    from tfcompress import edge
    from tfcompress.edge.reports.report import check_report_path
    from tfcompress.edge.targets.base import TARGETS

    if report is not None:
        check_report_path(report)
    with Progress(console=Console(stderr=True), transient=True, disable=as_json) as progress:
        task = progress.add_task("Measure", total=None)
        results = edge.benchmark(
            list(paths),
            delegate,
            threads,
            min_runs=runs,
            min_seconds=seconds,
            timeout=timeout,
            target=TARGETS.get(target),
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    found = edge.Report(results)
    if as_json:
        click.echo(found.to_json(), nl=False)
    else:
        Console().print(found.table())
    if report is not None:
        found.save(report)
    _check_all_ran(found)


def _check_all_ran(report: edge.Report) -> None:
    failed = [f"{r.name}: {r.status}: {r.reason}" for r in report.results if not r.ok]
    if failed:
        raise CheckFailed("; ".join(failed))
