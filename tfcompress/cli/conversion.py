"""Commands that make a .tflite file: of a Keras model, or of a float file."""

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
    on_runtime,
    print_json,
    registered_name,
    show,
    warnings_in_words,
)

if TYPE_CHECKING:
    from tfcompress import converters

__all__ = ["convert", "quantize"]


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
            flag = _flag(option)
            raise click.UsageError(f"{flag} goes with --precision {' or '.join(names)}.")
    return registered[name](**given)


def _flag(option: str) -> str:
    """Return what an option of the command is called, by the name of its value."""
    options = click.get_current_context().command.params
    return next((o.opts[-1] for o in options if o.name == option), f"--{option}")


def _exceptions(layers: tuple[str, ...]) -> dict[str, converters.Precision] | None:
    """Return the precisions of single layers, each given as REGEX=PRECISION."""
    registered = precisions()
    found = {}
    for text in layers:
        filters, _, given = text.rpartition("=")
        name = registered_name(given, registered)
        if not filters or name is None:
            raise click.BadParameter(
                f"{text!r} is not REGEX=PRECISION, with one of {', '.join(registered)}.",
                param_hint="--layers",
            )
        found[filters] = registered[name]()
    return found or None


Shapes = dict[str, tuple[int | None, ...]]


def _shapes(shapes: tuple[str, ...]) -> Shapes | list[Shapes] | None:
    """Return the sizes of inputs, each given as INPUT=SIZES; several if an input comes again."""
    found: dict[str, list[tuple[int | None, ...]]] = {}
    for text in shapes:
        name, _, given = text.partition("=")
        try:
            sizes = [None if size == "any" else int(size) for size in given.split(",")]
        except ValueError:
            raise click.BadParameter(
                f"{text!r} is not INPUT=SIZES, such as token_ids=1,128.", param_hint="--shape"
            ) from None
        found.setdefault(name, []).append(tuple(sizes))
    count = max(map(len, found.values()), default=0)
    if any(len(given) not in (1, count) for given in found.values()):
        times = ", ".join(f"{name} {len(given)} time(s)" for name, given in found.items())
        raise click.BadParameter(
            f"give each input once, or as often as the others: {times}.", param_hint="--shape"
        )
    each = [
        {name: given[i if len(given) > 1 else 0] for name, given in found.items()}
        for i in range(count)
    ]
    return each if count > 1 else each[0] if each else None


def _fields(precision: type[converters.Precision]) -> set[str]:
    return {field.name for field in dataclasses.fields(precision)}


def with_options(command: Command) -> Command:
    """Add the options of precisions that go with a model and with a file."""
    options = (
        click.option(
            "--io",
            help="Type that an int8 file takes and gives: float32, int8 or uint8; default: "
            "float32.",
        ),
        click.option(
            "--ranges",
            help="How the range of an activation follows from samples: mse, minmax or percentile; "
            "default: mse.",
        ),
        click.option(
            "--bias-correction",
            is_flag=True,
            default=None,
            help="Take from each bias what rounding the kernel adds to the outputs on average.",
        ),
        click.option(
            "--rounding",
            help="Of int4_weights and weight_only: gptq, which needs samples, or nearest.",
        ),
        click.option(
            "--budget", type=click.IntRange(1), help="Of int4_weights: largest size in bytes."
        ),
        click.option(
            "--bits", type=click.IntRange(4, 8), help="Of weight_only: 8 or 4; default: 8."
        ),
        click.option(
            "--block",
            type=click.IntRange(2),
            help="Of weight_only: weights that share a scale; default: all of an output.",
        ),
        click.option(
            "--activations",
            help="Of weight_only: what dense layers compute in, int8 or float32; default: int8.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


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
    "int8, int4_weights, int16x8, weight_only, or one that a module given with --import registers.",
)
@click.option(
    "-c",
    "--calibration",
    type=FILE,
    help=".npz of samples by input name, such as for -p int8; a quantization-aware model needs "
    "none.",
)
@click.option(
    "--equalize",
    is_flag=True,
    default=None,
    help="First move scales between layers, so that the channels of a tensor are as large as each "
    "other.",
)
@click.option(
    "--keep",
    metavar="REGEX",
    help="Of int4_weights: layers that stay int8; default: auto, the first and the last, or those "
    "that --budget has room for.",
)
@with_options
@click.option(
    "--layers",
    multiple=True,
    metavar="REGEX=PRECISION",
    help="Precision of the weights of some layers, such as head=int8; may be given several times.",
)
@click.option("--batch-size", type=click.IntRange(1), help="Fixed batch; default: any.")
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="INPUT=SIZES",
    help="Sizes of an input that the model leaves free, batch first, such as token_ids=1,128; "
    "`any` keeps one as it is. Given again for the same inputs, it makes a signature for each, "
    "such as serving_32 and serving_128.",
)
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
    layers: tuple[str, ...],
    batch_size: int | None,
    shapes: tuple[str, ...],
    strict: bool,
    sparse: bool,
    runtime: str | None,
    as_json: bool,
    unsafe: bool,
    **options: Any,
) -> None:
    """Write the .keras file MODEL as the .tflite file PATH."""
    from tfcompress import converters

    chosen = make_precision(precision, strict, calibration=calibration, io=io, **options)
    single = _exceptions(layers)
    input_shapes = _shapes(shapes)
    loaded = load(model, unsafe)
    try:
        with warnings_in_words():
            written = converters.convert(
                loaded, path, chosen, precisions=single, batch_size=batch_size,
                input_shapes=input_shapes, strict=strict, sparse=sparse, runtime=runtime,
            )  # fmt: skip
    except converters.ConversionError as error:
        raise CheckFailed(str(error)) from error
    _say(written, as_json)


@click.command(epilog="Example: tfcompress quantize m.tflite -o int8.tflite --data samples.npz")
@click.argument("path", type=FILE)
@click.option("-o", "--output", type=OUTPUT, required=True, help="Write the .tflite file here.")
@click.option(
    "-p",
    "--precision",
    type=Registered(precisions),
    default="int8",
    show_default=True,
    help="What weights and activations are stored and computed in: int8, int4_weights, int16x8, "
    "weight_only or float16.",
)
@click.option(
    "--data",
    "calibration",
    type=FILE,
    help=".npz of samples by input name, as `tfcompress inspect` shows the names.",
)
@with_options
@click.option("--strict", is_flag=True, help="Fail if an integer file keeps float ops inside.")
@on_runtime
@importing
@as_json
def quantize(
    path: Path,
    output: Path,
    precision: str,
    calibration: Path | None,
    strict: bool,
    runtime: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the float .tflite file PATH in integers, without the Keras model that it came from."""
    from tfcompress import converters

    chosen = make_precision(precision, strict, calibration=calibration, **options)
    try:
        with warnings_in_words():
            written = converters.quantize(path, output, chosen, strict=strict, runtime=runtime)
    except converters.ConversionError as error:
        raise CheckFailed(str(error)) from error
    _say(written, as_json)


def _say(written: converters.Converted, as_json: bool) -> None:
    """Print what is in a file that was written."""
    left = [str(op) for op in (*written.float_macs, *written.float_casts)]
    if as_json:
        found = {
            "path": str(written.path),
            "bytes": written.bytes,
            "gzip_bytes": written.gzip_bytes,
            "float_ops": left,
            "kept_float": list(written.kept_float),
            "kept_weights": dict(written.kept_weights),
            "notes": list(written.notes),
        }
        print_json({**found, "sparse": written.sparse.to_dict()} if written.sparse else found)
        return
    click.echo(
        f"Wrote {written.path}: {written.bytes:,} bytes ({written.gzip_bytes:,} after gzip)."
    )
    if written.sparse:
        show(written.sparse, as_json)
    if left:
        click.echo(f"Still in float: {', '.join(left)}.")
    if written.kept_float:
        click.echo(f"Kept in float, as int8 would ruin it: {', '.join(written.kept_float)}.")
    for layer, why in written.kept_weights.items():
        click.echo(f"Not in fewer bits: '{layer}': {why}.")
    for note in written.notes:
        click.echo(note)
