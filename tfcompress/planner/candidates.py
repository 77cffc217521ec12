"""Which recipes there are: ways to make a file, and changed models that may fit; pure functions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from .recipe import Outcome, Recipe
from .steps.base import STEPS, ChangeStep, FileStep
from .steps.qat import QuantizationAware
from .target import Figures, Target, allows, fits

__all__ = ["Entrant", "entrants", "file_steps", "free"]

_PLACES = 0.1
"""The bytes that tell where the weights that are not zero stand, as a share of those of all."""
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
    callbacks: bool = True,
) -> list[Entrant]:
    """Return one changed model for each way to change it, as mildly as the bounds allow.

    The ways are the choices of all registered steps, such as shares of the multiply-accumulates
    that are left of the channels. In each, zeros become more until the measured file fits.

    Args:
        outcomes: What came of the recipes before.
        goal: The bounds of the race.
        target: What is wanted.
        original: The figures of the original.
        callbacks: Whether callbacks can be given to training, without which no zeros are kept.

    Returns:
        The entrants, those first that cut a little of everything.
    """
    dense, sparse = _forms(outcomes, target)
    needs_aware = dense.name == "int8" and not _bears(outcomes, "int8", target)
    aware = (QuantizationAware(),) if needs_aware else ()
    broken = _broken(outcomes)
    steps = [step for step in _choices(callbacks) if step.name not in broken]
    ways = [(), *((step,) for step in steps if not step.makes_zeros)]
    zeros = [step for step in steps if step.makes_zeros]
    ladders = [tuple(group) for _, group in itertools.groupby(zeros, key=type)]
    found = []
    for way in ways:
        # Without zeros first, which is no change if the way is none, either.
        rungs = [(way, dense)] if way else []
        for place, ladder in enumerate(ladders or [()]):
            more = [((*way, step), sparse) for step in ladder if sparse.stores_zeros]
            tries = [
                (Recipe(file, tuple(sorted((*changes, *aware), key=_order))), _left(changes))
                for changes, file in [*(rungs if not place else []), *more]
            ]
            entrant = _mildest(tries, outcomes, goal, original)
            found += [entrant] if entrant else []
    return sorted(found, key=lambda entrant: entrant.balance)


def _mildest(
    tries: Sequence[tuple[Recipe, tuple[float, float]]],
    outcomes: Sequence[Outcome],
    goal: Target,
    original: Figures,
) -> Entrant | None:
    """Return the first recipe that fits, or that may and whose cost is not known.

    Args:
        tries: Recipes, each with the shares of the weights and of those that are not zero.
        outcomes: What came of the recipes before.
        goal: The bounds.
        original: The figures of the original.
    """
    known = {outcome.recipe: outcome for outcome in outcomes}
    off, margin = 1.0, _WIDE_MARGIN
    for recipe, (left, kept) in tries:
        cost = known.get(recipe)
        guess = _guess(outcomes, recipe.file, left, kept, original)
        balance = abs(math.log(left) - math.log(kept))
        if cost is None:
            if guess * off <= (goal.bytes or math.inf) * margin:
                return Entrant(recipe, True, balance)
            continue
        if cost.figures is None:
            return None
        off, margin = cost.figures.bytes / guess, _MARGIN
        if fits(goal, cost.figures.bytes, cost.figures.latency):
            return Entrant(recipe, False, balance)
        if goal.latency is not None and cost.figures.latency > goal.latency:
            return None  # zeros save no time
    return None


def _choices(callbacks: bool) -> list[ChangeStep]:
    """Return the choices of all registered changes."""
    kinds = [kind for name in STEPS.names() if issubclass(kind := STEPS.get(name), ChangeStep)]
    trained = [kind for kind in kinds if callbacks or kind.callbacks is ChangeStep.callbacks]
    return [choice for kind in sorted(trained, key=_order) for choice in kind.choices()]


def _order(step: ChangeStep | type[ChangeStep]) -> int:
    return step.order


def _left(changes: Sequence[ChangeStep]) -> tuple[float, float]:
    """Return about which share of the weights is left, and which of these are not zero."""
    left = math.prod(change.left() for change in changes if not change.makes_zeros)
    return left, math.prod(change.left() for change in changes if change.makes_zeros)


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
    outcomes: Sequence[Outcome], file: FileStep, left: float, kept: float, original: Figures
) -> float:
    """Return about how many bytes a file will have, before its model is even cut."""
    same = [
        o.figures.bytes for o in outcomes if o.figures and o.recipe == Recipe(file)
    ]  # the original's, in this form
    dense = same[0] if same else original.bytes * file.bits / 32
    return dense * left * (_PLACES + (1 - _PLACES) * kept)
