"""Commands that take a .keras file: what is in it, and what can be made of it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from .errors import BadInput, CheckFailed
from .options import FILE, OUTPUT, as_json, load, loading, on_delegate, on_threads, show

if TYPE_CHECKING:
    import keras

    from tfcompress.channels.dependency.build import Attention
    from tfcompress.channels.importance import ChannelImportance
    from tfcompress.channels.prune import Scope

__all__ = ["channels", "low_rank", "prune_channels", "summary"]

SHARE = click.FloatRange(0, 1, min_open=True)
BY_WEIGHTS = ("l2_norm", "l1_norm", "bn_scale")
BY_DATA = ("taylor", "activation_mean", "activation_zeros")

filters = click.option(
    "--filters", metavar="REGEX", help="Searched in the paths of layers; default: all layers."
)
attention = click.option(
    "--attention",
    type=click.Choice(["heads", "width"]),
    default="heads",
    show_default=True,
    help="What attention loses.",
)
round_to = click.option(
    "--round-to",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Sizes that are left are multiples of this.",
)


def _output(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Checked before the work begins."""
    if path is not None and path.suffix != ".keras":
        raise click.BadParameter(f"a model is saved as .keras. Received: {path.name!r}")
    if path is not None and not path.parent.is_dir():
        raise click.BadParameter(f"the folder {path.parent} does not exist.")
    return path


def _most(ctx: click.Context, parameter: click.Parameter, text: str | None) -> float | int | None:
    """`0.5` is a share, `12000000` a number."""
    try:
        return None if text is None else float(text) if "." in text else int(text)
    except ValueError as error:
        raise click.BadParameter(
            f"a share such as 0.5, or a whole number such as 12000000. Received: {text!r}"
        ) from error


@click.command(epilog="Example: tfcompress summary model.keras smaller.keras")
@click.argument("model", type=FILE)
@click.argument("after", type=FILE, required=False)
@as_json
@loading
def summary(model: Path, after: Path | None, as_json: bool, unsafe: bool) -> None:
    """Show parameters, zeros, multiply-accumulates and bytes of the .keras file MODEL.

    With a second .keras file AFTER, both side by side.
    """
    from tfcompress import summary as summarize

    loaded = load(model, unsafe)
    if after is None:
        show(summarize(loaded), as_json)
    else:
        show(summarize(loaded, load(after, unsafe)), as_json)


@click.command(epilog="Example: tfcompress channels model.keras")
@click.argument("model", type=FILE)
@filters
@attention
@as_json
@loading
def channels(
    model: Path,
    filters: str | None,
    attention: Attention,
    as_json: bool,
    unsafe: bool,
) -> None:
    """Show which channels of the .keras file MODEL can only be cut together, and which are kept."""
    from tfcompress import channel_groups

    show(channel_groups(load(model, unsafe), filters, attention), as_json)


@click.command(
    "prune-channels",
    epilog="Example: tfcompress prune-channels model.keras smaller.keras --macs 0.5 --round-to 8",
)
@click.argument("model", type=FILE)
@click.argument("output", type=OUTPUT, callback=_output)
@click.option(
    "--amount",
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of the channels, units and heads to cut.",
)
@click.option(
    "--macs",
    metavar="MOST",
    callback=_most,
    help="Multiply-accumulates that are left at most: a share (0.5) or a number (12000000).",
)
@click.option(
    "--parameters",
    metavar="MOST",
    callback=_most,
    help="Parameters that are left at most: a share (0.5) or a number (100000).",
)
@click.option(
    "--latency",
    type=SHARE,
    help="Share of the latency that is left at most, measured on --delegate.",
)
@on_delegate
@on_threads
@click.option(
    "--importance",
    type=click.Choice([*BY_WEIGHTS, *BY_DATA]),
    default=BY_WEIGHTS[0],
    show_default=True,
    help="What scores channels; the lowest are cut.",
)
@click.option(
    "--samples",
    type=FILE,
    help=f".npz of samples by input name, for {', '.join(BY_DATA)}; for taylor with targets, y.",
)
@click.option("--loss", help="For taylor, such as sparse_categorical_crossentropy.")
@click.option(
    "--scope",
    type=click.Choice(["layer", "global"]),
    default="layer",
    show_default=True,
    help="Whether --amount is cut from each layer, or from all together.",
)
@filters
@round_to
@click.option(
    "--most-of-a-group",
    type=SHARE,
    default=0.9,
    show_default=True,
    help="Share of the channels of a layer that is cut at most.",
)
@attention
@as_json
@loading
def prune_channels(
    model: Path,
    output: Path,
    amount: float | None,
    macs: float | int | None,
    parameters: float | int | None,
    latency: float | None,
    delegate: str,
    threads: int | None,
    importance: str,
    samples: Path | None,
    loss: str | None,
    scope: Scope,
    filters: str | None,
    round_to: int,
    most_of_a_group: float,
    attention: Attention,
    as_json: bool,
    unsafe: bool,
) -> None:
    """Cut the least important channels out of the .keras file MODEL; write the rest as OUTPUT.

    Shows both side by side. The smaller model is not compiled: train it on to win back accuracy.
    """
    import tfcompress as tfc

    def on_this_machine(most: float) -> tfc.budgets.Latency:
        return tfc.budgets.Latency(most, delegate=delegate, threads=threads)

    chosen = [
        made(most)
        for made, most in (
            (float, amount),
            (tfc.budgets.Macs, macs),
            (tfc.budgets.Parameters, parameters),
            (on_this_machine, latency),
        )
        if most is not None
    ]
    if len(chosen) != 1:
        raise click.UsageError("Give one of --amount, --macs, --parameters and --latency.")
    if (importance in BY_DATA) != (samples is not None):
        raise click.UsageError(f"--samples goes with --importance {', '.join(BY_DATA)}.")
    if (importance == "taylor") != (loss is not None):
        raise click.UsageError("--loss goes with --importance taylor.")
    loaded = load(model, unsafe)
    smaller = tfc.prune_channels(
        loaded,
        chosen[0],
        importance=_importance(importance, loaded, samples, loss),
        scope=scope,
        filters=filters,
        round_to=round_to,
        most_of_a_group=most_of_a_group,
        attention=attention,
    )
    _save(smaller, output)
    show(tfc.summary(loaded, smaller), as_json)
    if not as_json:
        _say_written(output)


def _importance(
    name: str, model: keras.Model, samples: Path | None, loss: str | None
) -> ChannelImportance:
    import keras
    import numpy as np

    from tfcompress.channels import importance
    from tfcompress.model.samples import load_samples
    from tfcompress.model.signature import signature

    function = getattr(importance, name)
    if samples is None:
        return cast("ChannelImportance", function)
    x = load_samples(samples, signature(model).inputs)
    if name != "taylor":
        return cast("ChannelImportance", function(x))
    try:
        keras.losses.get(loss)
    except ValueError as error:
        raise BadInput(
            f"--loss {loss}: Keras has no such loss, and no module given does."
        ) from error
    with samples.open("rb") as stream:
        file = np.load(stream)
        if not isinstance(file, Mapping) or "y" not in file:
            raise BadInput(f"{samples} has no targets: taylor wants an array named y.")
        return cast("ChannelImportance", function(x, file["y"], loss))


@click.command(
    "low-rank", epilog="Example: tfcompress low-rank model.keras --energy 0.9 -o smaller.keras"
)
@click.argument("model", type=FILE)
@click.option("--energy", type=SHARE, help="Share of the energy that each kernel keeps at least.")
@click.option("--ratio", type=SHARE, help="Rank as a share of the full rank.")
@click.option("--parameters", type=SHARE, help="Share of the parameters that is left at most.")
@click.option("--macs", type=SHARE, help="Share of the multiply-accumulates left at most.")
@filters
@round_to
@click.option(
    "--refine",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Sweeps of HOOI over what Tucker-2 begins with.",
)
@click.option(
    "-o", "--output", type=OUTPUT, callback=_output, help="Also write the model, as .keras."
)
@as_json
@loading
def low_rank(
    model: Path,
    energy: float | None,
    ratio: float | None,
    parameters: float | None,
    macs: float | None,
    filters: str | None,
    round_to: int,
    refine: int,
    output: Path | None,
    as_json: bool,
    unsafe: bool,
) -> None:
    """Show which layers of the .keras file MODEL can be several of low rank, and at what cost.

    One of --energy, --ratio, --parameters and --macs says how ranks are chosen. With --output the
    model is written, to be trained on.
    """
    import tfcompress as tfc

    rules = {"energy": energy, "ratio": ratio, "parameters": parameters, "macs": macs}
    if sum(share is not None for share in rules.values()) != 1:
        raise click.UsageError("Give one of --energy, --ratio, --parameters and --macs.")
    loaded = load(model, unsafe)
    plan = tfc.low_rank_plan(loaded, **rules, filters=filters, round_to=round_to, refine=refine)
    show(plan, as_json)
    if output is not None:
        if not plan.factorized:
            raise CheckFailed(f"No layer gets cheaper, so {output} was not written.")
        _save(tfc.factorize(loaded, plan), output)
        if not as_json:
            _say_written(output)


def _save(model: keras.Model, path: Path) -> None:
    """Whole or not at all."""
    from tfcompress.edge.system.files import write_whole

    with tempfile.TemporaryDirectory(prefix="tfcompress-") as folder:
        draft = Path(folder) / "model.keras"
        model.save(draft)
        write_whole({path: draft.read_bytes()})


def _say_written(path: Path) -> None:
    click.echo(f"Wrote {path}: {path.stat().st_size:,} bytes.")
