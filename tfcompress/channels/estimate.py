"""Estimate what a model costs without some units, without building it."""

from __future__ import annotations

import math

import keras

from tfcompress.cost.budgets import Macs, Parameters
from tfcompress.cost.macs import count_macs
from tfcompress.model.dependency.units import Ids
from tfcompress.model.kernels import is_kernel
from tfcompress.model.layers import own_weights, walk

from .groups import ChannelGroups
from .slicing import kept_shape, kept_units

__all__ = ["Estimate"]


class Estimate:
    """Counts parameters exactly, and multiply-accumulates in proportion to each layer's kernels.

    Args:
        model: The model.
        groups: Groups of the model.
        budget: Says which of the two is counted.
    """

    def __init__(
        self, model: keras.Model, groups: ChannelGroups, budget: Macs | Parameters
    ) -> None:
        self.roots = groups.coupling.roots()
        self.members = groups.coupling.by_variable()
        # Costs, each with the weights that it is in proportion to.
        self.parts: list[tuple[int, list[keras.Variable]]] = []
        if isinstance(budget, Parameters):
            self.parts = [(math.prod(v.shape), [v]) for v in model.weights]
        else:
            macs = count_macs(model)
            layers = {id(lineage[-1]): lineage[-1] for _, lineage in walk(model) if lineage}
            for layer, count in macs.items():
                kernels = [v for v in own_weights(layer) if is_kernel(layer, v)]
                self.parts.append((count or 0, kernels if id(layer) in layers else []))

    def __call__(self, removed: Ids) -> float:
        """Return the cost without these units."""
        keep = kept_units(self.roots, removed)
        total = 0.0
        for count, variables in self.parts:
            before = sum(math.prod(v.shape) for v in variables)
            after = sum(
                math.prod(kept_shape(v, self.members.get(id(v), []), keep)) for v in variables
            )
            total += count * (after / before if before else 1.0)
        return total
