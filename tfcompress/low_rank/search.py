"""Which rank each layer gets: by energy, by a share, or so that the model is within a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from tfcompress.cost import budgets
from tfcompress.cost.latency import least_reduction
from tfcompress.cost.macs import add_macs

from .candidates import Candidate, Counts
from .ranks import Options, common_energy
from .rewrite import rewrite

__all__ = ["Choice", "by_energy", "by_share", "energy_within", "energy_within_latency"]


@dataclass(frozen=True)
class Choice:
    """The rank of a layer, as a row of its options; or why it stays as it is.

    Attributes:
        row: Row of `Candidate.options`; None if the layer stays as it is.
        reason: Why it stays as it is, or "".
    """

    row: int | None
    reason: str = ""


def by_energy(found: Sequence[Candidate], energy: float, cost: str) -> list[Choice]:
    """Return the cheapest ranks that keep a share of the energy.

    Args:
        found: The candidates.
        energy: Share of each kernel's energy to keep, above 0 to 1.
        cost: What is to be cheapest: `"parameters"` or `"macs"`.

    Returns:
        A `Choice` for each candidate.
    """

    def row(options: Options) -> int | None:
        cheaper = options.cheapest(energy, cost)
        return options.needed(energy, cost) if cheaper is None else cheaper

    return [_choice(c, None if c.options is None else row(c.options)) for c in found]


def by_share(found: Sequence[Candidate], share: float) -> list[Choice]:
    """Return the ranks that are left when a share of each full rank is cut.

    Args:
        found: The candidates.
        share: Share of the full rank to cut, 0 to 1.

    Returns:
        A `Choice` for each candidate.
    """
    return [_choice(c, None if c.options is None else c.options.at(1 - share)) for c in found]


def energy_within(
    model: keras.Model,
    found: Sequence[Candidate],
    budget: budgets.Macs | budgets.Parameters,
    macs: Counts,
) -> float:
    """Return the highest energy that all layers can keep within a budget.

    Args:
        model: The model.
        found: Its candidates.
        budget: What is to be left of the model.
        macs: Multiply-accumulates of each layer.

    Returns:
        Share of the energy, 0 to 1.

    Raises:
        ValueError: If the model is above the budget at the lowest ranks, or its
            multiply-accumulates are not known.
    """
    cost = "macs" if isinstance(budget, budgets.Macs) else "parameters"
    before = _known_macs(model, macs) if cost == "macs" else int(model.count_params())
    wanted = budgets.allowed(budget, before)
    options = [candidate.options for candidate in found if candidate.options is not None]
    fixed = before - sum(option.before[cost] for option in options)
    energy, least = common_energy(options, cost, wanted - fixed)
    least += fixed
    if least > wanted:
        whole = isinstance(budget.most, int)
        smallest = type(budget)(least if whole else math.ceil(least / before * 1e4) / 1e4)
        raise ValueError(
            f"{budget} leaves {wanted:,} of the {before:,} {budgets.unit(budget)} of "
            f"{model.name!r}, but at the lowest ranks there are still {least:,}. The smallest "
            f"possible is {smallest}. "
            f"low_rank_plan(model, budgets.{smallest}) says which layers are left alone, and why."
        )
    return energy


def energy_within_latency(
    model: keras.Model,
    found: Sequence[Candidate],
    budget: budgets.Latency,
    macs: Counts,
    refine: int,
) -> float:
    """Return the highest energy that all layers can keep within a measured latency.

    Args:
        model: The model.
        found: Its candidates.
        budget: The latency to reach.
        macs: Multiply-accumulates of each layer; they order the models that are measured.
        refine: Sweeps of HOOI over what Tucker-2 begins with.

    Returns:
        Share of the energy, 0 to 1.

    Raises:
        ValueError: If the model is above the budget at the lowest ranks, or its
            multiply-accumulates are not known.
        edge.ModelRefused: If a candidate cannot be measured.
    """
    before = _known_macs(model, macs)
    options = [candidate.options for candidate in found if candidate.options is not None]
    fixed = before - sum(option.before["macs"] for option in options)
    least = fixed + common_energy(options, "macs", 0)[1]

    def energy(reduction: float) -> float:
        return common_energy(options, "macs", before - reduction * (before - least) - fixed)[0]

    def reduced(reduction: float) -> keras.Model:
        choices = by_energy(found, energy(reduction), "macs")
        ranks = {
            id(candidate.layer): candidate.options.rank(choice.row)
            for candidate, choice in zip(found, choices, strict=True)
            if candidate.options is not None and choice.row is not None
        }
        return rewrite(model, ranks, refine)

    advice = "Let `filters` select more layers, or lower `round_to`."
    return energy(least_reduction(budget, model, reduced, advice))


def _choice(candidate: Candidate, row: int | None) -> Choice:
    options = candidate.options
    if options is None:
        return Choice(None, candidate.reason)
    if not options.cheaper.any():
        # A k x k convolution narrower than `round_to` has no rank but the full one.
        lowest = options.rank(0) if len(options.ranks) else options.full_rank
        return Choice(None, f"too small: not cheaper even at rank {_join(lowest)}")
    if row is None:
        return Choice(None, "needs its full rank")
    if not options.cheaper[row]:
        return Choice(None, f"not cheaper at rank {_join(options.rank(row))}")
    return Choice(row)


def _known_macs(model: keras.Model, macs: Counts) -> int:
    counted = add_macs(macs.values())
    if counted is None:
        names = ", ".join(repr(layer.name) for layer, count in macs.items() if count is None)
        raise ValueError(
            f"The multiply-accumulates of {model.name!r} are not known, because the sizes of the "
            f"inputs of {names} are not. Give the model inputs of fixed sizes, or use a budget of "
            "Parameters."
        )
    return counted


def _join(rank: Sequence[int]) -> str:
    return ", ".join(map(str, rank))
