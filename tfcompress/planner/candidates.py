"""Which recipes there are: ways to make a file, and changed models that may fit; pure functions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from .recipe import Outcome, Recipe
from .steps.base import STEPS, ChangeStep, FileStep
from .steps.channels import Channels
from .steps.low_rank import LowRank
from .steps.qat import QuantizationAware
from .steps.zeros import Zeros
from .target import Figures, Target, allows, fits

__all__ = ["Entrant", "entrants", "file_steps", "free"]

_MACS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.17, 0.12)
_ZEROS = (0.0, 0.5, 0.7, 0.8, 0.9)
_RANKS = (0.5, 0.25)
_WIDE_MARGIN, _MARGIN = 1.5, 1.15
"""A guess of bytes may be so many times too large, before and after one like it was measured."""
_FAILURES = 2
"""A step that failed so often is not tried any more."""


@dataclass(frozen=True)
class Entrant:
    """A changed model that may fit.

    Attributes:
        recipe: What is done, without training.
        unknown: Whether its cost was not measured yet; if it was, it is within the bounds.
        balance: How unequally its channels and its zeros share the work; 0 is equally.
    """

    recipe: Recipe
    unknown: bool
    balance: float


def file_steps() -> list[FileStep]:
    """Return all ways to make a file: many bits first, and last those that only rescue."""
    found = [STEPS.get(name) for name in STEPS.names()]
    steps = [step() for step in found if issubclass(step, FileStep)]
    return sorted(steps, key=lambda step: (step.rescues, -step.bits, step.name))


def free(outcomes: Sequence[Outcome], target: Target) -> list[Recipe]:
    """Return the recipes that need no training and were not tried yet.

    Ways to make a file that help only where int8 loses too much are left out where it does not.

    >>> from tfcompress.planner import steps
    >>> [recipe.label() for recipe in free([], Target(accuracy_drop=0.01))]
    ['float16', 'dynamic int8', 'int8', 'int4 weights']

    Args:
        outcomes: What came of the recipes before.
        target: What is wanted.

    Returns:
        The recipes, in the order in which to try them.
    """
    tried = {outcome.recipe for outcome in outcomes}
    int8 = [o for o in outcomes if o.recipe.file.name == "int8" and not o.recipe.trained]
    lost = any(o.figures is None or not allows(target, o.loss) for o in int8)
    recipes = [Recipe(step) for step in file_steps() if lost or not step.rescues]
    return [recipe for recipe in recipes if recipe not in tried]


def entrants(
    outcomes: Sequence[Outcome],
    goal: Target,
    target: Target,
    original: Figures,
    can_prune: bool = True,
) -> list[Entrant]:
    """Return one changed model for each way to change it, as mildly as the bounds allow.

    The ways are shares of the multiply-accumulates that are left of the channels, or of the
    weights that low rank leaves. In each, the share of zeros goes up until the measured file fits.

    Args:
        outcomes: What came of the recipes before.
        goal: The bounds of the race.
        target: What is wanted.
        original: The figures of the original.
        can_prune: Whether zeros can be kept while a model trains.

    Returns:
        The entrants, those first that cut a little of everything.
    """
    known = {outcome.recipe: outcome for outcome in outcomes}
    dense, sparse = _forms(outcomes, target)
    ways: list[tuple[tuple[ChangeStep, ...], float]] = [
        ((Channels(macs),) if macs < 1 else (), macs) for macs in _MACS
    ]
    ways += [((LowRank(share),), share) for share in _RANKS]
    shares = _ZEROS if can_prune else _ZEROS[:1]
    broken = _broken(outcomes)
    aware = () if dense.name != "int8" or _bears(outcomes, "int8", target) else (
        QuantizationAware(),
    )  # fmt: skip
    found = []
    for changes, left in ways:
        if any(change.name in broken for change in changes):
            continue
        off, margin = 1.0, _WIDE_MARGIN
        for zeros in shares:
            if not changes and not zeros:
                continue
            file = sparse if zeros else dense
            if zeros and not file.stores_zeros:
                continue
            recipe = Recipe(file, (*changes, *((Zeros(zeros),) if zeros else ()), *aware))
            cost = known.get(recipe)
            guess = _guess(outcomes, file, left, zeros, original)
            if cost is None and guess * off > (goal.bytes or math.inf) * margin:
                continue
            if cost is not None and cost.figures is not None:
                off, margin = cost.figures.bytes / guess, _MARGIN
            balance = abs(math.log(left) - math.log(1 - zeros))
            if cost is None:
                found.append(Entrant(recipe, True, balance))
                break
            if cost.figures is None:
                break
            if fits(goal, cost.figures.bytes, cost.figures.latency):
                found.append(Entrant(recipe, False, balance))
                break
            if goal.latency is not None and cost.figures.latency > goal.latency:
                break  # zeros save no time
    return sorted(found, key=lambda entrant: entrant.balance)


def _forms(outcomes: Sequence[Outcome], target: Target) -> tuple[FileStep, FileStep]:
    """Return how files of changed models are made: those without zeros, and those with.

    They are the ones that cost the original's accuracy no more than allowed: the smallest, or the
    fastest where time counts. If there is none, int8 is, and the model learns to bear it.
    """
    fast = target.minimize == "latency" or (target.bytes is None and target.latency is not None)
    good = sorted(
        (o for o in outcomes if not o.recipe.trained and o.figures and allows(target, o.loss)),
        key=lambda o: _cost(o, fast),
    )
    if not fast and target.latency is not None:
        quick = [o for o in good if o.figures and o.figures.latency <= 2 * target.latency]
        good = quick or good
    files = [o.recipe.file for o in good]
    [int8] = [step for step in file_steps() if step.name == "int8"]
    dense = files[0] if files else int8
    stores = [file for file in files if file.stores_zeros]
    return dense, stores[0] if stores else int8


def _cost(outcome: Outcome, fast: bool) -> float:
    figures = outcome.figures
    if figures is None:
        return float("inf")
    return figures.latency if fast else figures.bytes


def _bears(outcomes: Sequence[Outcome], name: str, target: Target) -> bool:
    return any(
        o.figures and allows(target, o.loss)
        for o in outcomes
        if o.recipe.file.name == name and not o.recipe.trained
    )


def _broken(outcomes: Sequence[Outcome]) -> set[str]:
    """Return the names of changes that failed again and again, and never worked."""
    names = [
        (change.name, outcome.figures is not None)
        for outcome in outcomes
        for change in outcome.recipe.changes
    ]
    worked = {name for name, fine in names if fine}
    failed = sorted(name for name, fine in names if not fine)
    return {
        name
        for name, group in itertools.groupby(failed)
        if name not in worked and len(list(group)) >= _FAILURES
    }


def _guess(
    outcomes: Sequence[Outcome], file: FileStep, left: float, zeros: float, original: Figures
) -> float:
    """Return about how many bytes a file will have, before its model is even cut."""
    same = [
        o.figures.bytes for o in outcomes if o.figures and o.recipe == Recipe(file)
    ]  # the original's, in this form
    dense = same[0] if same else original.bytes * file.bits / 32
    return dense * left * (1 - 0.9 * zeros)
