"""Options that say how much of a model is cut: the same in every command that makes one smaller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .options import Command, on_delegate, on_threads

if TYPE_CHECKING:
    from tfcompress.cost.budgets import Budget

__all__ = ["SHARE", "amount_of", "with_amount"]

SHARE = click.FloatRange(0, 1, min_open=True)
NAMES = ("amount", "macs", "parameters", "latency")


def _most(ctx: click.Context, parameter: click.Parameter, text: str | None) -> float | int | None:
    """Return a share for `0.5`, a number for `12000000`."""
    try:
        return None if text is None else float(text) if "." in text else int(text)
    except ValueError as error:
        raise click.BadParameter(
            f"a share such as 0.5, or a whole number such as 12000000. Received: {text!r}"
        ) from error


def with_amount(command: Command) -> Command:
    """Add --amount, --macs, --parameters, --latency, and what a latency is measured with."""
    options = (
        click.option(
            "--amount",
            type=click.FloatRange(0, 1, max_open=True),
            help="Share to cut: of the channels, units and heads; or of the rank of each layer.",
        ),
        click.option(
            "--macs",
            metavar="MOST",
            callback=_most,
            help="Most multiply-accumulates to leave: a share (0.5) or a number (12000000).",
        ),
        click.option(
            "--parameters",
            metavar="MOST",
            callback=_most,
            help="Most parameters to leave: a share (0.5) or a number (100000).",
        ),
        click.option(
            "--latency",
            type=SHARE,
            help="Most latency to leave, as a share; measured on --delegate.",
        ),
        on_delegate,
        on_threads,
    )
    for option in reversed(options):
        command = option(command)
    return command


def amount_of(
    given: dict[str, Any], delegate: str, threads: int | None, *others: tuple[str, object]
) -> float | Budget | None:
    """Return what the options of `with_amount` say.

    Args:
        given: The values of --amount, --macs, --parameters and --latency, by name.
        delegate: The value of --delegate.
        threads: The value of --threads.
        *others: Names and values of options that may be given instead, such as `("energy", 0.9)`.

    Returns:
        A share, a budget, or None if one of the others is given.

    Raises:
        click.UsageError: If not exactly one of all these options is given.
    """
    from tfcompress import budgets

    alternatives = {**{name: given[name] for name in NAMES}, **dict(others)}
    chosen = [name for name, value in alternatives.items() if value is not None]
    if len(chosen) != 1:
        *first, last = (f"--{name}" for name in alternatives)
        raise click.UsageError(f"Give one of {', '.join(first)} and {last}.")
    [name] = chosen
    most = alternatives[name]
    match name:
        case "amount":
            return float(most)
        case "macs":
            return budgets.Macs(most)
        case "parameters":
            return budgets.Parameters(most)
        case "latency":
            return budgets.Latency(most, delegate=delegate, threads=threads)
    return None
