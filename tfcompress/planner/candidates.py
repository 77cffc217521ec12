"""Which recipes are worth trying next, from what came of those before: pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from .recipe import Outcome, Recipe
from .steps.base import STEPS, FileStep
from .target import Target

__all__ = ["file_steps", "free"]


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
    lost = any(o.figures is None or not target.allows(o.loss) for o in int8)
    recipes = [Recipe(step) for step in file_steps() if lost or not step.rescues]
    return [recipe for recipe in recipes if recipe not in tried]
