"""The order in which units are cut."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .coupling import Ids
from .groups import ChannelGroups

__all__ = ["Ranking"]


class Ranking:
    """Units in the order in which they are cut.

    Args:
        groups: The groups of a model.
        scores: For each that can be pruned, a score for each unit.
        round_to: What is left of a group is a multiple of this, or all of it.
        most_of_a_group: The share of a group that is cut at most.
    """

    def __init__(
        self,
        groups: ChannelGroups,
        scores: Sequence[npt.NDArray[np.float64]],
        round_to: int,
        most_of_a_group: float,
    ) -> None:
        self.groups = groups.prunable
        self.orders = [np.argsort(score, kind="stable") for score in scores]
        self.limits = [min(int(most_of_a_group * g.size + 1e-9), g.size - 1) for g in self.groups]
        self.round_to = round_to
        means = [score.mean() or 1.0 for score in scores]
        relative = np.concatenate([s / mean for s, mean in zip(scores, means, strict=True)])
        owner = np.repeat(np.arange(len(scores)), [len(score) for score in scores])
        self.owners = owner[np.argsort(relative, kind="stable")]

    @property
    def total(self) -> int:
        """How many units there are."""
        return len(self.owners)

    def of_each(self, share: float) -> Ids:
        """The lowest of each group."""
        return self._removed([int(share * group.size + 1e-9) for group in self.groups])

    def lowest(self, count: int) -> Ids:
        """The lowest of all."""
        counts = np.bincount(self.owners[:count], minlength=len(self.groups))
        return self._removed(counts.tolist())

    def _removed(self, counts: Sequence[int]) -> Ids:
        found = [np.zeros(0, np.int64)]
        for group, order, count, most in zip(
            self.groups, self.orders, counts, self.limits, strict=True
        ):
            left = group.size - min(count, most)
            if not group.kind.startswith(("heads", "head ", "key ", "value ")):
                left = min(math.ceil(left / self.round_to) * self.round_to, group.size)
            found.append(group.roots[order[: group.size - left]])
        return np.concatenate(found)
