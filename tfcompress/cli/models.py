"""Commands that take a .keras file: what is in it, and what can be made of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .amounts import SHARE, amount_of, with_amount
from .errors import BadInput, CheckFailed
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

if TYPE_CHECKING:
    import keras

    from tfcompress.channels.collect import Attention
    from tfcompress.channels.prune import Scope

__all__ = ["channels", "low_rank", "prune_channels", "summary"]


def _importances() -> list[str]:
    import tfcompress as tfc

    return tfc.importance.IMPORTANCES.names()


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
@on_filters
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
@click.argument("output", type=OUTPUT, callback=check_output)
@with_amount
@click.option(
    "--dead",
    is_flag=True,
    help="Cut the channels that change no output, and no others, instead of --amount.",
)
@click.option(
    "--importance",
    type=Registered(_importances),
    default="l2_norm",
    show_default=True,
    help="What scores channels; the lowest are cut. taylor, activation_mean, l1_norm, ...",
)
@click.option(
    "--samples",
    type=FILE,
    help=".npz of samples by input name, for an importance by data; for taylor with targets, y.",
)
@click.option("--loss", help="For taylor, such as sparse_categorical_crossentropy.")
@click.option(
    "--scope",
    type=click.Choice(["layer", "global"]),
    default="layer",
    show_default=True,
    help="Whether --amount is cut from each layer, or from all together.",
)
@on_filters
@round_to
@click.option(
    "--max-pruning-ratio",
    type=SHARE,
    default=0.9,
    show_default=True,
    help="Largest share of the channels of a layer that is cut.",
)
@attention
@as_json
@loading
def prune_channels(
    model: Path,
    output: Path,
    delegate: str,
    threads: int | None,
    dead: bool,
    importance: str,
    samples: Path | None,
    loss: str | None,
    scope: Scope,
    filters: str | None,
    round_to: int,
    max_pruning_ratio: float,
    attention: Attention,
    as_json: bool,
    unsafe: bool,
    **amounts: float | int | None,
) -> None:
    """Cut the least important channels out of the .keras file MODEL; write the rest as OUTPUT.

    Shows both side by side. The smaller model is not compiled: train it on to win back accuracy.
    """
    import tfcompress as tfc

    amount = amount_of(amounts, delegate, threads, ("dead", dead or None))
    needs = tfc.importance.IMPORTANCES.needs(importance)
    _check_goes_with(importance, "samples", samples, needs != "weights", ("data", "loss"))
    _check_goes_with(importance, "loss", loss, needs == "loss", ("loss",))
    loaded = load(model, unsafe)
    _check_loss(loss)
    smaller = tfc.prune_channels(
        loaded,
        amount,
        dead=dead,
        importance=importance,
        data=None if samples is None else _data(loaded, samples, targets=needs == "loss"),
        loss=loss,
        scope=scope,
        filters=filters,
        round_to=round_to,
        max_pruning_ratio=max_pruning_ratio,
        attention=attention,
    )
    save(smaller, output)
    show(tfc.summary(loaded, smaller), as_json)
    if not as_json:
        say_written(output)


def _check_goes_with(
    importance: str, option: str, value: object, needed: bool, needs: tuple[str, ...]
) -> None:
    import tfcompress as tfc

    if needed and value is None:
        raise click.UsageError(f"--importance {importance} needs --{option}.")
    if value is not None and not needed:
        names = ", ".join(tfc.importance.IMPORTANCES.names(*needs))
        raise click.UsageError(
            f"--{option} goes with --importance {names}. Received: --importance {importance}"
        )


def _data(model: keras.Model, samples: Path, targets: bool) -> Any:
    """Return the inputs in a file, or inputs and targets."""
    import numpy as np

    from tfcompress.model.samples import load_samples
    from tfcompress.model.signature import signature

    x = load_samples(samples, signature(model).inputs)
    if not targets:
        return x
    with samples.open("rb") as stream:
        file = np.load(stream)
        if not isinstance(file, Mapping) or "y" not in file:
            raise BadInput(f"{samples} has no targets: --loss wants an array named y.")
        return x, file["y"]


def _check_loss(name: str | None) -> None:
    import keras

    try:
        keras.losses.get(name)
    except ValueError as error:
        raise BadInput(
            f"--loss {name}: Keras has no such loss, and no module given does."
        ) from error


@click.command(
    "low-rank", epilog="Example: tfcompress low-rank model.keras --energy 0.9 -o smaller.keras"
)
@click.argument("model", type=FILE)
@with_amount
@click.option("--energy", type=SHARE, help="Share of the energy that each kernel keeps at least.")
@on_filters
@round_to
@click.option(
    "--refine",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Sweeps of HOOI over what Tucker-2 begins with.",
)
@click.option(
    "-o", "--output", type=OUTPUT, callback=check_output, help="Also write the model, as .keras."
)
@as_json
@loading
def low_rank(
    model: Path,
    delegate: str,
    threads: int | None,
    energy: float | None,
    filters: str | None,
    round_to: int,
    refine: int,
    output: Path | None,
    as_json: bool,
    unsafe: bool,
    **amounts: float | int | None,
) -> None:
    """Show which layers of the .keras file MODEL can be replaced by several of low rank.

    Shows ranks, costs before and after, and why the other layers are left alone. One of --amount,
    --macs, --parameters, --latency and --energy says how ranks are chosen. With --output the model
    is written, to be trained on.
    """
    import tfcompress as tfc

    amount = amount_of(amounts, delegate, threads, ("energy", energy))
    loaded = load(model, unsafe)
    plan = tfc.low_rank_plan(
        loaded, amount, energy=energy, filters=filters, round_to=round_to, refine=refine
    )
    show(plan, as_json)
    if output is not None:
        if not plan.factorized:
            raise CheckFailed(f"No layer gets cheaper, so {output} was not written.")
        save(tfc.factorize(loaded, plan), output)
        if not as_json:
            say_written(output)
