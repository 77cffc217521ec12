"""Channel pruning: a model in, a smaller one out."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt

from tfcompress.channels.dependency.build import Attention, channel_groups
from tfcompress.channels.dependency.units import Ids
from tfcompress.cost import budgets
from tfcompress.cost.budgets import Budget, Latency
from tfcompress.cost.latency import least_reduction
from tfcompress.edge.arguments import check_choice, check_function, check_integer, check_number
from tfcompress.model.checks import check_finite
from tfcompress.model.filters import Filters, check

from .estimate import Estimate
from .groups import ChannelGroup, ChannelGroups
from .importance import ChannelImportance, get
from .ranking import Ranking, Sizes
from .slicing import remove_units

__all__ = ["prune_channels", "prune_channels_gradually"]

_MOST_STEPS = 1000

Scope = Literal["layer", "global"]


def prune_channels(
    model: keras.Model,
    amount: float | Budget,
    *,
    importance: str | ChannelImportance = "l2_norm",
    data: Any = None,
    loss: Any = None,
    scope: Scope = "layer",
    filters: Filters = None,
    round_to: int = 1,
    max_pruning_ratio: float = 0.9,
    attention: Attention = "heads",
) -> keras.Model:
    """Cut the least important channels, units and heads out of a model.

    The model's graph says what can be cut, and what goes with what: print
    `tfcompress.channel_groups(model)` to see it. The new model has the same layers, with fewer
    channels, and the weights that are left. Cutting units that nothing reads (whose outgoing
    weights are zero) changes no output, except where layers normalize over the units
    (`LayerNormalization`). Cutting others costs accuracy; train the result some epochs more to win
    it back.

    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(8, name="a"), keras.layers.Dense(2, name="b")])
    >>> small = prune_channels(model, 0.5)
    >>> [tuple(weight.shape) for weight in small.weights]
    [(4, 4), (4,), (4, 2), (2,)]

    Args:
        model: A built model; subclassed, if its `call` can be traced. It stays as it is.
        amount: The share of units to cut, from 0 to below 1; or what is to be left of the model:
            `budgets.Macs`, `budgets.Parameters` or `budgets.Latency`.
        importance: Name of a registered importance, or a function from `tfcompress.importance`. The
            units with the lowest scores are cut first. Defaults to `"l2_norm"`, the squares of the
            weights that go with a unit.
        data: What an importance given by name looks at, if it needs data: inputs `x`, a tuple
            `(x, y)` of inputs and targets, or a `tf.data.Dataset`. Defaults to None.
        loss: A Keras loss or its name, if an importance given by name needs one, such as
            `"taylor"`. Defaults to the loss that the model was compiled with.
        scope: Whether the share is cut from each group (`"layer"`, the default), or from all units
            together (`"global"`): their scores are then divided by the mean of their group. Budgets
            are always global.
        filters: Layers that may lose outputs: a regular expression searched in the layer's path, a
            list of layers or names, or a function of the layer. Defaults to all.
        round_to: The size that is left of a group is a multiple of this, or the whole group.
            Defaults to 1. Heads and their widths are not rounded. XNNPACK with AVX-512 computes 16
            floats at once: 16 gives more speed for the same budget there than 8.
        max_pruning_ratio: The largest share of a group that is cut, above 0 and at most 1. Defaults
            to 0.9. One unit always stays.
        attention: Whether attention loses whole heads (`"heads"`, the default), or width of each
            head (`"width"`).

    Returns:
        A new functional model, not compiled.

    Raises:
        TypeError: If `model` is no Keras model, or an argument has the wrong type.
        ValueError: If the model is not built, cannot be traced, is quantization-aware, or holds
            NaN; if an argument is out of range; if `filters` or one of its entries selects no layer
            that makes channels; if nothing can be cut; or if the budget is less than what is left
            when all that may be cut is cut.

    Reference:
        Fang et al., "DepGraph: Towards Any Structural Pruning", https://arxiv.org/abs/2301.12900.
    """
    options = _Options(
        importance, data, loss, scope, filters, round_to, max_pruning_ratio, attention
    )
    return _prune(model, amount, options, None)


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
    known = [field.name for field in fields(_Options)]
    if unknown := [name for name in options if name not in known]:
        raise TypeError(
            f"prune_channels_gradually has no argument {unknown[0]!r}. There are: "
            f"{', '.join(known)}."
        )
    chosen = _Options(**options)
    budgets.check_amount(amount, "units")
    groups = channel_groups(model, chosen.filters, chosen.attention)
    originals = {(group.kind, group.producers): group.size for group in groups}
    if isinstance(amount, budgets.Macs | budgets.Parameters):
        original, wanted = budgets.cost(amount, model), budgets.limit(amount, model)
        left = min(1.0, wanted / original)
    else:
        left = 1 - amount
    for step in range(steps):
        share = left ** ((step + 1) / steps)
        part: float | Budget = 1 - share
        if isinstance(amount, budgets.Macs | budgets.Parameters):
            part = type(amount)(wanted if step == steps - 1 else int(original * share))
        model = _prune(model, part, chosen, originals)
        fine_tune(model, step)
    return model


@dataclass(frozen=True)
class _Options:
    """The options of `prune_channels`, checked."""

    importance: str | ChannelImportance = "l2_norm"
    data: Any = None
    loss: Any = None
    scope: Scope = "layer"
    filters: Filters = None
    round_to: int = 1
    max_pruning_ratio: float = 0.9
    attention: Attention = "heads"

    def __post_init__(self) -> None:
        check_choice("scope", self.scope, ("layer", "global"))
        check_integer("round_to", self.round_to, 1)
        check_number("max_pruning_ratio", self.max_pruning_ratio, above=0, most=1)
        check_choice("attention", self.attention, ("heads", "width"))
        check(self.filters)
        get(self.importance, self.data, self.loss)


def _prune(
    model: keras.Model, amount: float | Budget, options: _Options, originals: Sizes | None
) -> keras.Model:
    """Prune as `prune_channels`, with shares of the sizes that groups had originally."""
    budgets.check_amount(amount, "units")
    groups = channel_groups(model, options.filters, options.attention)
    model = groups.model
    if not groups.prunable:
        raise ValueError(f"There is nothing to cut in {model.name!r}:\n{groups}")
    check_finite(model)
    importance = get(options.importance, options.data, options.loss)
    scores = _scores(importance, model, groups.prunable)
    ranking = Ranking(groups, scores, options.round_to, options.max_pruning_ratio, originals)

    def smaller(removed: Ids) -> keras.Model:
        return remove_units(model, groups.coupling, removed)

    if isinstance(amount, Latency):
        return _within_latency(model, amount, ranking, smaller)
    if isinstance(amount, budgets.Macs | budgets.Parameters):
        return _within(model, amount, ranking, smaller, groups)
    in_each = options.scope == "layer"
    return smaller(ranking.of_each(amount) if in_each else ranking.of_all(amount))


def _scores(
    importance: ChannelImportance, model: keras.Model, groups: Sequence[ChannelGroup]
) -> list[npt.NDArray[np.float64]]:
    scores = [np.asarray(score, np.float64) for score in importance(model, groups)]
    if len(scores) != len(groups):
        raise ValueError(
            f"`importance` must give scores for each of the {len(groups)} groups. Received: "
            f"{len(scores)} arrays"
        )
    for group, score in zip(groups, scores, strict=True):
        if score.shape != (group.size,) or not np.isfinite(score).all():
            raise ValueError(
                f"`importance` must give a finite score for each of the {group}. "
                f"Received: shape {score.shape}, {np.sum(~np.isfinite(score))} of them not finite"
            )
    return scores


def _within(
    model: keras.Model,
    budget: budgets.Macs | budgets.Parameters,
    ranking: Ranking,
    smaller: Callable[[Ids], keras.Model],
    groups: ChannelGroups,
) -> keras.Model:
    """Return the largest model within a budget: searched by estimates, then counted."""
    wanted = budgets.limit(budget, model)
    if budgets.cost(budget, model) <= wanted:
        return smaller(ranking.lowest(0))
    estimate = Estimate(model, groups, budget)
    least = smaller(ranking.lowest(ranking.total))
    possible = budgets.cost(budget, least)
    if possible > wanted:
        raise ValueError(
            f"{model.name!r} cannot be cut to {wanted:,} {budgets.unit(budget)}: the smallest "
            f"possible is {possible:,}. Raise `max_pruning_ratio`, let `filters` select more "
            "layers, or lower `round_to`."
        )
    low, high, aim = 0, ranking.total, float(wanted)
    while True:
        # Costs fall as the count rises: the first that is low enough.
        count = low + bisect_left(
            range(low, high), -aim, key=lambda count: -estimate(ranking.lowest(count))
        )
        removed = ranking.lowest_within(count, estimate, aim)
        found = smaller(removed)
        counted = budgets.cost(budget, found)
        if counted <= wanted:
            return found
        if count >= high:
            return least
        # What an estimate leaves out (products of two activations, say) may cost a little more.
        low, aim = count + 1, estimate(removed) * wanted / counted


def _within_latency(
    model: keras.Model,
    budget: Latency,
    ranking: Ranking,
    smaller: Callable[[Ids], keras.Model],
) -> keras.Model:
    """Return the largest model that is measured to be within a latency budget."""

    def reduced(reduction: float) -> keras.Model:
        return smaller(ranking.lowest(int(reduction * ranking.total)))

    advice = "Raise `max_pruning_ratio`, or let `filters` select more layers."
    return reduced(least_reduction(budget, model, reduced, advice))
