"""The order in which units are cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tfcompress.channels.dependency.units import Ids

from .groups import ChannelGroups

__all__ = ["Ranking", "Sizes"]

Sizes: TypeAlias = dict[tuple[str, tuple[str, ...]], int]
"""The size of each group, by its kind and its producers."""


class Ranking:
    """Units in the order in which they are cut.

    Args:
        groups: The groups of a model.
        scores: For each that can be pruned, a score for each unit.
        round_to: What is left of a group is a multiple of this, or all of it.
        max_pruning_ratio: The share of a group that is cut at most.
        originals: Sizes that shares are of, for groups that were cut before.
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
        """How many units there are."""
        return len(self.owners)

    def of_each(self, share: float) -> Ids:
        """The lowest of each group, to cut a share of what it was originally."""
        return self._removed(
            [
                group.size - (n - int(share * n + 1e-9))
                for group, n in zip(self.groups, self.originals, strict=True)
            ]
        )

    def of_all(self, share: float) -> Ids:
        """The lowest of all, to cut a share of what there was originally."""
        n = sum(self.originals)
        return self.lowest(self.total - (n - int(share * n + 1e-9)))

    def lowest(self, count: int) -> Ids:
        """The lowest of all."""
        return self._removed(self._counts(count))

    def lowest_within(self, count: int, cost: Callable[[Ids], float], most: float) -> Ids:
        """The lowest of all, but for those that fit again: the highest are tried first.

        With `round_to`, several units go at once, and may have left room for others.
        """
        counts = self._counts(count)
        removed, full = self._removed(counts), set()
        for group in self.owners[:count][::-1]:
            if group in full:
                continue
            counts[group] -= 1
            fewer = self._removed(counts)
            if len(fewer) == len(removed):
                continue  # what is left of the group was rounded up
            if cost(fewer) <= most:
                removed = fewer
            else:
                counts[group] += 1
                full.add(group)
        return removed

    def _counts(self, count: int) -> list[int]:
        """How many of each group are among the lowest."""
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
            if not keep[axis].any():  # of each half of a split, too, something stays
                keep[axis[np.argmax(self.scores[axis])]] = True
        return np.flatnonzero(~keep)
