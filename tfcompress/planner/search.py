"""What to try next, decided from what is known: pure functions, the same in each worker.

Without training: the ways to make a file. If they do not do, a race. Its entrants are changed
models whose cost, measured untrained, is within bounds: bytes and latency do not depend on what
training does to the weights. All are trained for a few epochs, the best third of them goes on for
three times as many, and so forth (successive halving). If a race is won and less is asked for
still, the next one is for fewer bytes, or less time.

Reference:
    Jamieson & Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter
    optimization", https://arxiv.org/abs/1502.07943
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from .candidates import Entrant, entrants, free
from .recipe import Outcome, Recipe
from .steps.qat import QuantizationAware
from .target import Figures, Target, met_by, rank

__all__ = ["NO_TRAINING", "Decision", "confirm", "decide", "goals"]

NO_TRAINING = "nothing can be trained"

_SURE = 2.0
"""Standard errors by which an estimate may be wrong."""
_GOES_ON = 3
"""One of so many goes on to the next rung."""
_STEPS_DOWN = (0.5, 0.7, 0.85, 0.95)
"""Shares of the best so far that the next race is for, after none, one, two and three lost ones."""
_LONGEST = 3
"""Rungs of a race for less than what is good enough; one for what is wanted takes all."""


@dataclass(frozen=True)
class Decision:
    """What a worker does next.

    Attributes:
        recipe: What to try; None if there is nothing for now.
        wait: Whether something may come of what others are trying.
        why: Why there is nothing.
        confirms: Whether the recipe was tried, and is to be measured on all validation data now.
    """

    recipe: Recipe | None = None
    wait: bool = False
    why: str = ""
    confirms: bool = False


def decide(
    outcomes: Sequence[Outcome],
    running: Collection[Recipe],
    target: Target,
    original: Figures,
    rungs: Sequence[int],
    callbacks: bool = True,
) -> Decision:
    """Return what to try next.

    Args:
        outcomes: What came of the recipes before, in the order of their beginning.
        running: What other workers are trying.
        target: What is wanted.
        original: The figures of the original.
        rungs: Numbers of epochs to train for; none if nothing can be trained.
        callbacks: Whether callbacks can be given to training, without which no zeros are kept.

    Returns:
        The decision.
    """
    for recipe in free(outcomes, target):
        if recipe not in running:
            return Decision(recipe)
    if free(outcomes, target):
        return Decision(wait=True)
    unsure = confirm(outcomes, running, target, original)
    if unsure.recipe or unsure.wait:
        return unsure
    met = [o for o in outcomes if o.figures and not o.samples and met_by(target, o.figures, o.loss)]
    # Without a bound of the loss, the least loss is wanted.
    if target.minimize is None and any(
        target.accuracy_drop is not None or o.loss <= 0 for o in met
    ):
        return Decision(why="the target is met")
    if not rungs:
        return Decision(why=NO_TRAINING)
    won = met and target.minimize
    for goal in goals(outcomes, target):
        field = entrants(outcomes, goal, target, original, callbacks)
        decision = _race(field, outcomes, running, rungs[:_LONGEST] if won else rungs)
        if decision.recipe or decision.wait:
            return decision
    return Decision(why="all that may be within the bounds was tried")


def confirm(
    outcomes: Sequence[Outcome], running: Collection[Recipe], target: Target, original: Figures
) -> Decision:
    """Return which outcome, estimated from some samples, to measure on all validation data next.

    It is one that may be better than the best so far, if its loss is two standard errors less.

    Args:
        outcomes: What came of the recipes before.
        running: What other workers are trying.
        target: What is wanted.
        original: The figures of the original.

    Returns:
        The decision.
    """
    ranks = [rank(target, original, 0.0)]
    ranks += [rank(target, o.figures, o.loss) for o in outcomes if o.figures and not o.samples]
    best = min(ranks)
    hopes = [
        (rank(target, o.figures, o.loss - _SURE * o.error), o.recipe)
        for o in outcomes
        if o.figures and o.samples
    ]
    unsure = [recipe for hope, recipe in sorted(hopes, key=lambda h: h[0]) if hope < best]
    for recipe in unsure:
        if recipe not in running:
            return Decision(recipe, confirms=True)
    return Decision(wait=bool(unsure))


def goals(outcomes: Sequence[Outcome], target: Target) -> list[Target]:
    """Return the bounds of the races: what is wanted, or less than the best that meets it.

    >>> from tfcompress.planner.steps.int8 import Int8File
    >>> done = Outcome(Recipe(Int8File()), Figures(1000, 0.9, 1.0, 0.5), 0.0)
    >>> target = Target(accuracy_drop=0.01, minimize="bytes")
    >>> [goal.bytes for goal in goals([done], target)]
    [500, 700, 850, 950]

    Args:
        outcomes: What came of the recipes before.
        target: What is wanted.

    Returns:
        Targets; a race for one begins when the one before is lost.
    """
    known = [(o.figures, o.loss) for o in outcomes if o.figures and not o.samples]
    good = [(figures, loss) for figures, loss in known if met_by(target, figures, loss)]
    if not good or target.minimize is None:
        return [target]
    figures, _ = min(good, key=lambda pair: rank(target, *pair))
    if target.minimize == "latency":
        return [replace(target, latency=figures.latency * share) for share in _STEPS_DOWN]
    return [replace(target, bytes=max(1, int(figures.bytes * share))) for share in _STEPS_DOWN]


def _race(
    field: Sequence[Entrant],
    outcomes: Sequence[Outcome],
    running: Collection[Recipe],
    rungs: Sequence[int],
) -> Decision:
    """Return the next step of a race: a cost, a training on the first rung, or on a higher one.

    A race that is won ends by itself, as the bounds of the next one are others.
    """
    known = {outcome.recipe: outcome for outcome in outcomes}

    def pick(recipes: Sequence[Recipe]) -> Decision:
        missing = [recipe for recipe in recipes if recipe not in known]
        for recipe in missing:
            if recipe not in running:
                return Decision(recipe)
        return Decision(wait=bool(missing))

    # Each is trained as soon as it is known to fit: it may win before others cost time.
    first = [e.recipe if e.unknown else e.recipe.at(rungs[0]) for e in field]
    decision = pick(first)
    if decision.recipe or decision.wait:
        return decision
    racing = [entrant.recipe for entrant in field]
    for epochs in rungs:
        rung = [recipe.at(epochs) for recipe in racing]
        decision = pick(rung)
        if decision.recipe or decision.wait:
            return decision
        # Before a rung is decided, all on it have finished, or their workers' leases have run out.
        finished = [known[recipe] for recipe in rung if known[recipe].figures]
        finished.sort(key=lambda o: o.loss)
        racing = [o.recipe for o in finished[: math.ceil(len(rung) / _GOES_ON)]]
    # What int8 lost at the end, training as int8 computes may win back.
    last = [recipe for recipe in racing if recipe.file.name == "int8"][:1]
    return pick(
        [replace(r, changes=(*r.changes, QuantizationAware())) for r in last if not _aware(r)]
    )


def _aware(recipe: Recipe) -> bool:
    return any(isinstance(change, QuantizationAware) for change in recipe.changes)
