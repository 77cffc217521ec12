"""The command line: `tfcompress demo | convert | inspect | verify | bench | summary | qat-report`.

Exit codes: 0 fine, 1 the check failed, 2 bad usage or bad input.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import Progress

from . import edge
from .edge.console import captured
from .edge.report import check_target

if TYPE_CHECKING:
    import keras

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
OUTPUT = click.Path(dir_okay=False, path_type=Path)
PRECISIONS = ("float32", "float16", "dynamic", "int8")
BOUNDS = {
    "lsb": "Largest error, in steps of a quantized output.",
    "max_error": "Largest absolute error.",
    "mean_error": "Largest mean absolute error.",
    "snr_below": "Smallest signal-to-noise ratio, in dB.",
    "cosine_below": "Smallest cosine between the outputs.",
    "top1_below": "Smallest share of samples with the same best class, 0 to 1.",
}

Command = Callable[..., Any]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for a machine to read.")
on_delegate = click.option(
    "--delegate",
    type=click.Choice(["xnnpack", "reference", "gpu"]),
    default="xnnpack",
    show_default=True,
    help="What runs the ops.",
)
on_threads = click.option("--threads", type=click.IntRange(1), help="CPU threads; default: one.")


def loading(command: Command) -> Command:
    """Options of a command that loads a Keras model."""
    module = click.option(
        "--import",
        "modules",
        multiple=True,
        metavar="MODULE",
        help="Module that registers custom layers; may be given several times.",
    )
    unsafe = click.option(
        "--unsafe", is_flag=True, help="Load Lambda layers too: they run code from the file."
    )
    return module(unsafe(command))


def bounded(command: Command) -> Command:
    """One option for each bound of `Verification.raise_if_above`."""
    for name, text in reversed(BOUNDS.items()):
        command = click.option(f"--{name.replace('_', '-')}", type=float, help=text)(command)
    return command


class CheckFailed(click.ClickException):
    """The command did its work, and the answer is no."""

    exit_code = 1


class BadInput(click.ClickException):
    """What the user gave cannot be worked with."""

    exit_code = 2


class Commands(click.Group):
    """Reports errors that are meant for the user in one line, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click knows what to do when `| head` has seen enough
        except edge.DelegateMismatch as error:
            raise CheckFailed(str(error)) from error
        except (
            ValueError,
            OSError,
            ImportError,
            edge.DelegateUnavailable,
            edge.ModelRefused,
        ) as error:
            raise BadInput(str(error)) from error


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="tfcompress")
def main() -> None:
    """Make Keras 3 models small and fast on the device, and prove it.

    Exit codes: 0 fine, 1 the check failed, 2 bad usage or bad input.
    """


@main.command(epilog="Example: tfcompress demo --out my-demo")
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
    from . import converters
    from .demo import demo as run

    console = Console()
    try:
        report = run(out, seed=seed, console=console)
    except (converters.ConversionError, converters.VerificationError) as error:
        raise CheckFailed(str(error)) from error
    console.print(report.table())
    console.print(f"Open {out / 'report.html'}. Beside it: report.json, report.md, .tflite files.")
    _check_all_ran(report)


@main.command(epilog="Example: tfcompress convert model.keras model.tflite -p int8 -c samples.npz")
@click.argument("model", type=FILE)
@click.argument("path", type=OUTPUT)
@click.option(
    "-p",
    "--precision",
    type=click.Choice(PRECISIONS),
    default="float32",
    show_default=True,
    help="What weights and activations are stored and computed in.",
)
@click.option(
    "-c",
    "--calibration",
    type=FILE,
    help=".npz of samples by input name, for -p int8; a quantization-aware model needs none.",
)
@click.option(
    "--io",
    type=click.Choice(["float32", "int8", "uint8"]),
    help="What an int8 file takes and gives; default: float32.",
)
@click.option("--batch-size", type=click.IntRange(1), help="Fixed batch; default: any.")
@click.option("--strict", is_flag=True, help="Fail if an int8 file keeps float ops inside.")
@as_json
@loading
def convert(
    model: Path,
    path: Path,
    precision: str,
    calibration: Path | None,
    io: str | None,
    batch_size: int | None,
    strict: bool,
    as_json: bool,
    modules: tuple[str, ...],
    unsafe: bool,
) -> None:
    """Write the .keras file MODEL as the .tflite file PATH."""
    from . import converters

    if precision != "int8" and (calibration or io or strict):
        raise click.UsageError("--calibration, --io and --strict go with --precision int8.")
    choices: dict[str, Callable[[], converters.Precision]] = {
        "float32": converters.Float32,
        "float16": converters.Float16,
        "dynamic": converters.DynamicInt8,
        "int8": lambda: converters.Int8(calibration=calibration, io=io or "float32"),
    }
    chosen = choices[precision]()
    loaded = _load(model, modules, unsafe)
    try:
        written = converters.convert(loaded, path, chosen, batch_size=batch_size, strict=strict)
    except converters.ConversionError as error:
        raise CheckFailed(str(error)) from error
    left = [str(op) for op in (*written.float_macs, *written.leftover)]
    if as_json:
        _print_json({"path": str(path), "bytes": written.bytes, "not_int8": left})
        return
    click.echo(f"Wrote {path}: {written.bytes:,} bytes.")
    if left:
        click.echo(f"Not int8: {', '.join(left)}.")


@main.command(epilog="Example: tfcompress inspect model.tflite")
@click.argument("path", type=FILE)
@as_json
def inspect(path: Path, as_json: bool) -> None:
    """Show the ops, tensors, types, scales, zeros and bytes of the .tflite file PATH."""
    from . import converters

    found = converters.inspect(path)
    if as_json:
        _print_json(found.to_dict())
    else:
        click.echo(found)


@main.command(epilog="Example: tfcompress verify model.keras model.tflite --samples x.npz --lsb 4")
@click.argument("model", type=FILE)
@click.argument("path", type=FILE)
@click.option("--samples", type=FILE, required=True, help=".npz of samples by input name.")
@bounded
@on_delegate
@on_threads
@as_json
@loading
def verify(
    model: Path,
    path: Path,
    samples: Path,
    delegate: str,
    threads: int | None,
    as_json: bool,
    modules: tuple[str, ...],
    unsafe: bool,
    **bounds: float | None,
) -> None:
    """Compare the .tflite file PATH with the .keras file MODEL on the same samples.

    With bounds it is a check, and fails if any output is beyond one.
    """
    from . import converters

    found = converters.verify(
        _load(model, modules, unsafe), path, samples, delegate=delegate, threads=threads
    )
    if as_json:
        _print_json(found.to_dict())
    else:
        click.echo(found)
    if any(bound is not None for bound in bounds.values()):
        try:
            found.raise_if_above(**bounds)
        except converters.VerificationError as error:
            raise CheckFailed(str(error)) from error


@main.command(epilog="Example: tfcompress bench dense.tflite small.tflite --report report.html")
@click.argument("paths", type=FILE, nargs=-1, required=True)
@on_delegate
@on_threads
@click.option("--runs", type=click.IntRange(1), default=50, show_default=True, help="At least.")
@click.option(
    "--seconds", type=click.FloatRange(0), default=1.0, show_default=True, help="At least."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=120.0,
    show_default=True,
    help="Seconds in which a file must load, or finish a tenth of its runs.",
)
@click.option("--report", type=OUTPUT, help="Also write a .html, .md or .json report.")
@as_json
def bench(
    paths: tuple[Path, ...],
    delegate: str,
    threads: int | None,
    runs: int,
    seconds: float,
    timeout: float,
    report: Path | None,
    as_json: bool,
) -> None:
    """Measure size, latency and memory of .tflite files; speed-ups are over the first."""
    if report is not None:
        check_target(report)
    with Progress(console=Console(stderr=True), transient=True, disable=as_json) as progress:
        task = progress.add_task("Measure", total=None)
        results = edge.benchmark(
            list(paths),
            delegate,
            threads,
            min_runs=runs,
            min_seconds=seconds,
            timeout=timeout,
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


@main.command(epilog="Example: tfcompress summary model.keras")
@click.argument("model", type=FILE)
@as_json
@loading
def summary(model: Path, as_json: bool, modules: tuple[str, ...], unsafe: bool) -> None:
    """Show parameters, zeros, multiply-accumulates and bytes of the .keras file MODEL."""
    from . import summary as summarize

    found = summarize(_load(model, modules, unsafe))
    if as_json:
        _print_json(found.to_dict())
    else:
        Console().print(found)


@main.command("qat-report", epilog="Example: tfcompress qat-report qat.keras")
@click.argument("model", type=FILE)
@as_json
@loading
def report_qat(model: Path, as_json: bool, modules: tuple[str, ...], unsafe: bool) -> None:
    """Show what of the quantization-aware .keras file MODEL becomes int8, what float, and why."""
    from . import qat_report

    found = qat_report(_load(model, modules, unsafe))
    if as_json:
        _print_json(found.to_dict())
    else:
        Console().print(found)


def _check_all_ran(report: edge.Report) -> None:
    failed = [f"{r.name}: {r.status}: {r.reason}" for r in report.results if not r.ok]
    if failed:
        raise CheckFailed("; ".join(failed))


def _load(path: Path, modules: tuple[str, ...], unsafe: bool) -> keras.Model:
    try:
        import keras
    except ModuleNotFoundError as error:
        raise ImportError(
            "This command needs Keras and TensorFlow. "
            "Install them with: pip install 'tfcompress[tensorflow]'"
        ) from error

    # As `python` does for a script: the user's module lies in the folder that they stand in.
    sys.path.insert(0, str(Path.cwd()))
    for module in modules:
        importlib.import_module(module)
    with captured():
        try:
            return keras.models.load_model(path, compile=False, safe_mode=not unsafe)
        except Exception as error:
            raise BadInput(
                f"{path} cannot be loaded as a Keras model: {error}\nCustom layers must be "
                "registered by a module given with --import; Lambda layers need --unsafe."
            ) from error


def _print_json(data: object) -> None:
    click.echo(json.dumps(data, indent=2, allow_nan=False))
