"""Channel pruning in several steps, with training after each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import keras
import numpy as np

from tfcompress.channels.collect import channel_groups
from tfcompress.cost import budgets
from tfcompress.cost.budgets import Budget, Latency
from tfcompress.edge.arguments import check_function, check_integer

from .groups import ChannelGroups
from .prune import Options, check_least, prune_to
from .ranking import Ranking
from .slicing import remove_units

__all__ = ["prune_channels_gradually"]

_MOST_STEPS = 1000


def prune_channels_gradually(
    model: keras.Model,
    amount: float | budgets.Macs | budgets.Parameters,
    fine_tune: Callable[[keras.Model, int], object],
    *,
    steps: int = 3,
    **options: Any,
) -> keras.Model:
    """Cut channels in several steps, and train the model after each.

    This is the loop below, with amounts that add up: each step leaves the same share of what it
    finds. Shares, rounding and `max_pruning_ratio` refer to the original sizes of the groups.

        for step in range(steps):
            model = tfc.prune_channels(model, amount_of_step)
            fine_tune(model, step)

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(16), keras.layers.Dense(2)])
    >>> widths = []
    >>> def fine_tune(model, step):
    ...     widths.append(model.layers[1].units)  # compile and fit it here
    >>> small = prune_channels_gradually(model, 0.75, fine_tune, steps=2)
    >>> widths
    [8, 4]

    Args:
        model: A built model; subclassed, if its `call` can be traced. It stays as it is.
        amount: The share of units to cut in all, from 0 to below 1; or what is to be left of the
            model: `budgets.Macs` or `budgets.Parameters`.
        fine_tune: Function of the model and the number of the step, from 0, called after each cut.
            It compiles the model and trains it in place.
        steps: Number of cuts, at least 1. Defaults to 3.
        **options: Keyword arguments of `prune_channels`, with the defaults that they have there.

    Returns:
        The last model, trained.

    Raises:
        TypeError: If `model` is no Keras model, an argument has the wrong type, or `amount` is a
            `Latency`.
        ValueError: If `steps` is not from 1 to 1000, or for any reason that `prune_channels` has.
    """
    steps = check_integer("steps", steps, 1, _MOST_STEPS)
    check_function("fine_tune", fine_tune, "model", "step")
    if isinstance(amount, Latency):
        raise TypeError(
            "Gradual pruning takes a share, `Macs` or `Parameters`. Prune to a `Latency` at once, "
            "and see what share of the MACs that leaves."
        )
    known = [field.name for field in fields(Options)]
    if unknown := [name for name in options if name not in known]:
        raise TypeError(
            f"prune_channels_gradually has no argument {unknown[0]!r}. There are: "
            f"{', '.join(known)}."
        )
    chosen = Options(**options)
    budgets.check_amount(amount, "units")
    groups = channel_groups(model, chosen.filters, chosen.attention)
    originals = {(group.kind, group.producers): group.size for group in groups}
    if isinstance(amount, budgets.Macs | budgets.Parameters):
        original, wanted = budgets.cost(amount, model), budgets.limit(amount, model)
        left = min(1.0, wanted / original)
        _check_possible(groups, amount, wanted, chosen)
    else:
        left = 1 - amount
    for step in range(steps):
        share = left ** ((step + 1) / steps)
        part: float | Budget = 1 - share
        if isinstance(amount, budgets.Macs | budgets.Parameters):
            part = type(amount)(wanted if step == steps - 1 else int(original * share))
        model = prune_to(model, part, chosen, originals)
        fine_tune(model, step)
    return model


def _check_possible(
    groups: ChannelGroups, budget: budgets.Macs | budgets.Parameters, wanted: int, options: Options
) -> None:
    """Raise if a budget cannot be met, whatever the units are worth."""
    if groups.prunable and budgets.cost(budget, groups.model) > wanted:
        equal = [np.ones(group.size) for group in groups.prunable]
        ranking = Ranking(groups, equal, options.round_to, options.max_pruning_ratio)
        removed = ranking.lowest(ranking.total)
        check_least(remove_units(groups.model, groups.coupling, removed), budget, wanted)
