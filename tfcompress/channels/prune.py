"""Channel pruning: a model in, a smaller one out."""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt

from tfcompress.channels.collect import Attention, channel_groups
from tfcompress.cost import budgets
from tfcompress.cost.budgets import Budget, Latency
from tfcompress.cost.latency import least_reduction
from tfcompress.edge.arguments import check_bool, check_choice, check_integer, check_number
from tfcompress.model.checks import check_finite
from tfcompress.model.dependency.units import Ids
from tfcompress.model.filters import Filters, check

from .dead import dead_units
from .estimate import Estimate
from .groups import ChannelGroup, ChannelGroups
from .importance import ChannelImportance, get
from .ranking import Ranking, Sizes
from .slicing import remove_units

__all__ = ["Options", "check_least", "prune_channels", "prune_to"]

Scope = Literal["layer", "global"]


def prune_channels(
    model: keras.Model,
    amount: float | Budget | None = None,
    *,
    dead: bool = False,
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

    `dead=True` cuts all units that change no output, and nothing else: those whose outgoing weights
    are zero, or lost in the rounding of float32 beside the others, and those whose value is a
    constant that the next biases can take over. Training with weight decay, or with `GroupLasso`,
    leaves many of them.

    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(8, name="a"), keras.layers.Dense(2, name="b")])
    >>> small = prune_channels(model, 0.5)
    >>> [tuple(weight.shape) for weight in small.weights]
    [(4, 4), (4,), (4, 2), (2,)]

    Args:
        model: A built model; subclassed, if its `call` can be traced. It stays as it is.
        amount: The share of units to cut, from 0 to below 1; or what is to be left of the model:
            `budgets.Macs`, `budgets.Parameters` or `budgets.Latency`. Defaults to None, with
            `dead=True`.
        dead: Whether to cut the units that change no output, instead of an `amount`. The options
            `filters`, `round_to` and `attention` go with it. Defaults to False.
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
        A new functional model, not compiled. A warning says when `dead=True` finds nothing to cut.

    Raises:
        TypeError: If `model` is no Keras model, or an argument has the wrong type.
        ValueError: If the model is not built, cannot be traced, is quantization-aware, or holds
            NaN; if not exactly one of `amount` and `dead` is given; if an argument is out of range;
            if `filters` or one of its entries selects no layer
            that makes channels; if nothing can be cut; or if the budget is less than what is left
            when all that may be cut is cut.

    Reference:
        Fang et al., "DepGraph: Towards Any Structural Pruning", https://arxiv.org/abs/2301.12900.
    """
    options = Options(
        importance, data, loss, scope, filters, round_to, max_pruning_ratio, attention
    )
    check_bool("dead", dead)
    if (amount is None) != dead:
        raise ValueError(
            "Give one of `amount`, a share or a budget, and `dead=True`. "
            f"Received: amount={amount!r}, dead={dead!r}"
        )
    if amount is None:
        scored = ("importance", "data", "loss", "scope", "max_pruning_ratio")
        if unused := [name for name in scored if getattr(options, name) != getattr(Options, name)]:
            raise ValueError(
                f"`dead=True` scores no units, so it does not go with `{unused[0]}`. Received: "
                f"{unused[0]}={getattr(options, unused[0])!r}"
            )
        return _without_dead(model, options)
    return prune_to(model, amount, options, None)


@dataclass(frozen=True)
class Options:
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


def prune_to(
    model: keras.Model, amount: float | Budget, options: Options, originals: Sizes | None
) -> keras.Model:
    """Return a model without its least important units.

    Args:
        model: A built model; it stays as it is.
        amount: The share of units to cut, or what is to be left of the model.
        options: The options of `prune_channels`.
        originals: Sizes of groups that shares, rounding and `max_pruning_ratio` refer to. None for
            the sizes that the groups have.

    Returns:
        A functional model, not compiled.
    """
    budgets.check_amount(amount, "units")
    groups = _prunable_groups(model, options)
    model = groups.model
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


def _prunable_groups(model: keras.Model, options: Options) -> ChannelGroups:
    groups = channel_groups(model, options.filters, options.attention)
    if not groups.prunable:
        raise ValueError(f"There is nothing to cut in {model.name!r}:\n{groups}")
    check_finite(groups.model)
    return groups


def _without_dead(model: keras.Model, options: Options) -> keras.Model:
    """Return a model without the units that change no output."""
    groups = _prunable_groups(model, options)
    found = dead_units(groups)
    alive = [np.where(units, 0.0, 1.0) for units in found.units]
    ranking = Ranking(groups, alive, options.round_to, max_pruning_ratio=1.0)
    removed = ranking.lowest(sum(int(units.sum()) for units in found.units))
    if not len(removed):
        warnings.warn(
            f"No unit of {groups.model.name!r} is dead, so that nothing is cut: each changes an "
            "output.",
            stacklevel=3,
        )
    return remove_units(groups.model, groups.coupling, removed, found.biases(removed))


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
    check_least(least, budget, wanted)
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


def check_least(least: keras.Model, budget: budgets.Macs | budgets.Parameters, wanted: int) -> None:
    """Raise if the smallest model that can be cut costs more than a budget allows.

    Args:
        least: The smallest possible model.
        budget: Says what is counted.
        wanted: The number that the budget allows.

    Raises:
        ValueError: The model costs more; the message says how much.
    """
    possible = budgets.cost(budget, least)
    if possible > wanted:
        raise ValueError(
            f"{least.name!r} cannot be cut to {wanted:,} {budgets.unit(budget)}: the smallest "
            f"possible is {possible:,}. Raise `max_pruning_ratio`, let `filters` select more "
            "layers, or lower `round_to`."
        )


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
