"""Commands on models that become int8: even their channels out, make them quantization-aware."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from .errors import CheckFailed
from .options import (
    FILE,
    OUTPUT,
    Registered,
    as_json,
    check_output,
    load,
    loading,
    on_filters,
    save,
    say_written,
    show,
)

__all__ = ["equalize", "quantize_aware", "report_qat"]


def _observers() -> Iterable[str]:
    from tfcompress.quantization.observers.base import observers

    return observers()


@click.command(epilog="Example: tfcompress equalize model.keras even.keras --data samples.npz")
@click.argument("model", type=FILE)
@click.argument("output", type=OUTPUT, callback=check_output)
@click.option("--data", type=FILE, required=True, help=".npz of samples by input name.")
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="How much of the unevenness moves into the weights that read the channels.",
)
@click.option(
    "--insert-scales",
    is_flag=True,
    help="Put scales around the residual sums of transformers, whose channels cannot be evened out "
    "otherwise.",
)
@on_filters
@as_json
@loading
def equalize(
    model: Path,
    output: Path,
    data: Path,
    alpha: float,
    insert_scales: bool,
    filters: str | None,
    as_json: bool,
    unsafe: bool,
) -> None:
    """Write the .keras file MODEL as OUTPUT, with channels that fill their range in int8.

    The function stays. Shows which channels are scaled, and why others are not.
    """
    import tfcompress as tfc

    loaded = load(model, unsafe)
    how: dict[str, Any] = {"filters": filters, "alpha": alpha, "insert_scales": insert_scales}
    plan = tfc.equalization_plan(loaded, data, **how)
    show(plan, as_json)
    if not plan.equalized:
        raise CheckFailed(f"Nothing can be equalized, so {output} was not written.")
    save(tfc.equalize(loaded, data, **how), output)
    if not as_json:
        say_written(output)


@click.command(
    "quantize-aware",
    epilog="Example: tfcompress quantize-aware model.keras -o qat.keras --data samples.npz",
)
@click.argument("model", type=FILE)
@click.option(
    "-o",
    "--output",
    type=OUTPUT,
    callback=check_output,
    required=True,
    help="Write the model here, as .keras.",
)
@click.option(
    "--data", type=FILE, required=True, help=".npz of samples by input name, for the ranges."
)
@click.option(
    "--ranges",
    type=Registered(_observers),
    default="moving_average",
    show_default=True,
    help="What gives the ranges of activations: moving_average, learned, minmax, or an observer "
    "that a module given with --import registers.",
)
@click.option(
    "--float-sums",
    is_flag=True,
    help="Keep the sums that normalizations read in float, as pretrained transformers need it.",
)
@on_filters
@as_json
@loading
def quantize_aware(
    model: Path,
    output: Path,
    data: Path,
    ranges: str,
    float_sums: bool,
    filters: str | None,
    as_json: bool,
    unsafe: bool,
) -> None:
    """Make the .keras file MODEL quantization-aware, with the ranges of samples, to be trained on.

    Shows what of it becomes int8, what float, and why.
    """
    import tfcompress as tfc

    scheme = tfc.QuantizationScheme(ranges=ranges)
    qat = tfc.quantize_aware(load(model, unsafe), filters, scheme=scheme, float_sums=float_sums)
    tfc.calibrate(qat, data)
    save(qat, output)
    show(tfc.qat_report(qat), as_json)
    if not as_json:
        say_written(output)


@click.command("qat-report", epilog="Example: tfcompress qat-report qat.keras")
@click.argument("model", type=FILE)
@as_json
@loading
def report_qat(model: Path, as_json: bool, unsafe: bool) -> None:
    """Show what of the quantization-aware .keras file MODEL becomes int8, what float, and why."""
    from tfcompress import qat_report

    show(qat_report(load(model, unsafe)), as_json)
