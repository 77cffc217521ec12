"""The order in which units are cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tfcompress.model.dependency.units import Ids

from .groups import ChannelGroups

__all__ = ["Ranking", "Sizes"]

Sizes: TypeAlias = dict[tuple[str, tuple[str, ...]], int]
"""The size of each group, by its kind and its producers."""


class Ranking:
    """Orders the units of all groups by score, and says which of them are cut.

    Args:
        groups: The groups of a model.
        scores: For each group that can be pruned, an array with a score for each unit.
        round_to: The size that is left of a group is a multiple of this, or the whole group.
        max_pruning_ratio: The largest share of a group that is cut, above 0 and at most 1.
        originals: Original sizes of groups that were cut before, which shares refer to. Defaults to
            the sizes that the groups have.
    """

    def __init__(
        self,
        groups: ChannelGroups,
        scores: Sequence[npt.NDArray[np.float64]],
        round_to: int,
        max_pruning_ratio: float,
        originals: Sizes | None = None,
    ) -> None:
        self.groups = groups.prunable
        self.orders = [np.argsort(score, kind="stable") for score in scores]
        known = originals or {}
        self.originals = [known.get((g.kind, g.producers), g.size) for g in self.groups]
        least = [max(1, n - int(max_pruning_ratio * n + 1e-9)) for n in self.originals]
        self.limits = [max(0, g.size - n) for g, n in zip(self.groups, least, strict=True)]
        self.round_to = round_to
        means = [score.mean() or 1.0 for score in scores]
        relative = np.concatenate([s / mean for s, mean in zip(scores, means, strict=True)])
        owner = np.repeat(np.arange(len(scores)), [len(score) for score in scores])
        self.owners = owner[np.argsort(relative, kind="stable")]
        self.roots = groups.coupling.roots()
        self.scores = np.full(len(self.roots), np.inf)
        self.scores[np.concatenate([group.roots for group in self.groups])] = relative
        self.axes = [self.roots[ids] for ids in groups.coupling.axes]

    @property
    def total(self) -> int:
        """Return the number of units in all groups."""
        return len(self.owners)

    def of_each(self, share: float) -> Ids:
        """Return the lowest-scoring units of each group: a share of its original size."""
        return self._removed(
            [
                group.size - (n - int(share * n + 1e-9))
                for group, n in zip(self.groups, self.originals, strict=True)
            ]
        )

    def of_all(self, share: float) -> Ids:
        """Return the lowest-scoring units of all groups: a share of their original sizes."""
        n = sum(self.originals)
        return self.lowest(self.total - (n - int(share * n + 1e-9)))

    def lowest(self, count: int) -> Ids:
        """Return the lowest-scoring units of all groups, so many as `count` says."""
        return self._removed(self._counts(count))

    def lowest_within(self, count: int, cost: Callable[[Ids], float], most: float) -> Ids:
        """Return the lowest-scoring units, minus units that still fit in the budget after rounding.

        With `round_to`, several units are cut at once, and may leave room for others. The units
        with the highest scores are given back first.

        Args:
            count: Number of lowest-scoring units to start with.
            cost: Returns the cost of the model without some units.
            most: The budget, in the unit of `cost`.

        Returns:
            The units to cut.
        """
        counts = self._counts(count)
        removed, full = self._removed(counts), set()
        for group in self.owners[:count][::-1]:
            if group in full:
                continue
            counts[group] -= 1
            fewer = self._removed(counts)
            if len(fewer) == len(removed):
                continue  # Rounding keeps this unit anyway.
            if cost(fewer) <= most:
                removed = fewer
            else:
                counts[group] += 1
                full.add(group)
        return removed

    def _counts(self, count: int) -> list[int]:
        """Return how many units of each group are among the lowest-scoring."""
        counts = np.bincount(self.owners[: max(count, 0)], minlength=len(self.groups))
        return [int(number) for number in counts]

    def _removed(self, counts: Sequence[int]) -> Ids:
        keep = np.full(len(self.roots), True)
        for group, order, count, most in zip(
            self.groups, self.orders, counts, self.limits, strict=True
        ):
            left = group.size - min(max(count, 0), most)
            if not group.kind.startswith(("heads", "head ", "key ", "value ")):
                left = min(math.ceil(left / self.round_to) * self.round_to, group.size)
            keep[group.roots[order[: group.size - left]]] = False
        for axis in self.axes:
            if not keep[axis].any():  # Each part of a split keeps a unit, too.
                keep[axis[np.argmax(self.scores[axis])]] = True
        return np.flatnonzero(~keep)
