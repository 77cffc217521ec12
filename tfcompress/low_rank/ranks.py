"""What each rank of a layer keeps of the energy and costs, and which rank is chosen."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from . import decompositions
from .factors import CONVOLUTIONS, full_rank

__all__ = ["Options", "common_energy", "options"]

Array: TypeAlias = npt.NDArray[Any]
Shape: TypeAlias = tuple[int | None, ...]

# A share of the energy below the rounding of float32 weights: (1e-6)^2.
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Options:
    """The ranks that a layer may get, one in each row, with their energy and costs.

    Attributes:
        ranks: Array of shape `(n, 1)` for an SVD; `(n, 2)` for Tucker-2, with the rank of the
            inputs and the rank of the outputs.
        energy: Share of the energy that is kept, array of shape `(n,)`.
        costs: `"parameters"` and `"macs"` of all new kernels, arrays of shape `(n,)`.
        before: `"parameters"` and `"macs"` of the old kernel.
        full_rank: The highest rank of each column.
        known: Whether multiply-accumulates are per sample. If not, they are per position of the
            output, which is enough to compare ranks.
    """

    ranks: Array
    energy: Array
    costs: dict[str, Array]
    before: dict[str, int]
    full_rank: tuple[int, ...]
    known: bool

    @property
    def cheaper(self) -> Array:
        """Return where both costs fall; parameters alone, if there is nothing to multiply."""
        fewer = self.costs["parameters"] < self.before["parameters"]
        if self.before["macs"] == 0:
            return np.asarray(fewer)
        return np.asarray(fewer & (self.costs["macs"] < self.before["macs"]))

    def rank(self, row: int) -> tuple[int, ...]:
        """Return the rank in a row: one number, or two of Tucker-2."""
        return tuple(int(rank) for rank in self.ranks[row])

    def cheapest(self, energy: float, cost: str) -> int | None:
        """Return the cheapest row that keeps `energy` and is cheaper than the kernel, if any."""
        return self._least(self.cheaper & self._enough(energy), cost)

    def needed(self, energy: float, cost: str) -> int | None:
        """Return the cheapest row that keeps `energy`, cheaper than the kernel or not, if any."""
        return self._least(self._enough(energy), cost)

    def at(self, ratio: float) -> int | None:
        """Return the row with this share of the full rank, rounded up to the next row, or None."""
        wanted = [max(1, round(ratio * size)) for size in self.full_rank]
        found = np.flatnonzero((self.ranks >= wanted).all(axis=1))
        return int(found[self.ranks[found].sum(axis=1).argmin()]) if len(found) else None

    def _enough(self, energy: float) -> Array:
        return self.energy >= energy - _ROUNDING

    def _least(self, allowed: Array, cost: str) -> int | None:
        rows = np.flatnonzero(allowed)
        if len(rows) == 0:
            return None
        order = np.lexsort((-self.energy[rows], self.costs[cost][rows]))
        return int(rows[order[0]])


def options(
    layer: keras.layers.Layer,
    kernel: Array,
    shapes: list[Shape],
    macs: int | None,
    round_to: int,
) -> Options:
    """Return the ranks that a layer may get.

    Args:
        layer: A layer for which `factors.why_not` returns "".
        kernel: Its kernel, from `factors.kernel_of`.
        shapes: Shape of the input of each call.
        macs: Multiply-accumulates of the layer as it is; None if unknown.
        round_to: Ranks are multiples of this, or full.

    Returns:
        Options in ascending order of rank. The full ranks of Tucker-2, which change nothing, are
        left out.
    """
    size, inputs, outputs = kernel.shape
    lookup = isinstance(layer, layers.Embedding)
    places = _entering(layer, shapes) if lookup else macs and macs // kernel.size
    leaving = places or 1
    entering = leaving
    if isinstance(layer, CONVOLUTIONS):
        known = _entering(layer, shapes) if places else None
        entering = known or leaving * math.prod(layer.strides)
    before = {"parameters": kernel.size, "macs": 0 if lookup else leaving * kernel.size}
    full = full_rank(layer, kernel)
    axes = [_multiples(size, round_to) for size in full]
    if len(axes) == 1:
        [rank] = axes
        energy = decompositions.svd_energy(kernel[0])[rank - 1]
        costs = {
            "parameters": rank * (inputs + outputs),
            "macs": leaving * rank * (outputs if lookup else inputs + outputs),
        }
        return Options(rank[:, None], energy, costs, before, full, places is not None)
    first, last = (grid.ravel() for grid in np.meshgrid(*axes, indexing="ij"))
    changed = (first < inputs) | (last < outputs)
    first, last = first[changed], last[changed]
    energy = decompositions.tucker2_energy(kernel)[first - 1, last - 1]
    # A matrix of full rank is left out.
    reduce, expand = inputs * first * (first < inputs), last * outputs * (last < outputs)
    core = size * first * last
    costs = {
        "parameters": reduce + core + expand,
        "macs": entering * reduce + leaving * (core + expand),
    }
    return Options(np.stack([first, last], axis=1), energy, costs, before, full, places is not None)


def common_energy(candidates: Iterable[Options], cost: str, most: float) -> tuple[float, int]:
    """Return the highest energy that all layers can keep within a budget.

    Args:
        candidates: The options of each layer.
        cost: `"parameters"` or `"macs"`.
        most: What all layers may cost in sum.

    Returns:
        Share of the energy, 0 to 1, and the least that the layers can cost in sum. Where the least
        is above `most`, the energy is 0.
    """
    frontiers = []
    for option in candidates:
        rows = np.flatnonzero(option.cheaper)
        rows = rows[np.argsort(option.energy[rows])]
        costs = np.append(option.costs[cost][rows], option.before[cost])
        # The least cost of all rows that keep at least as much energy.
        frontiers.append((option.energy[rows], np.minimum.accumulate(costs[::-1])[::-1]))

    def total(energy: float) -> int:
        return sum(
            int(costs[np.searchsorted(kept, energy - _ROUNDING)]) for kept, costs in frontiers
        )

    low, high = 0.0, 1.0
    if total(high) <= most:
        return high, total(low)
    for _ in range(50):  # As fine as float64 near 1.
        middle = (low + high) / 2
        low, high = (middle, high) if total(middle) <= most else (low, middle)
    return low, total(0.0)


def _entering(layer: Any, shapes: list[Shape]) -> int | None:
    """Return the number of positions in all inputs of one sample, or of ids to look up."""
    total = 0
    for shape in shapes:
        sizes = shape[1:]
        if isinstance(layer, CONVOLUTIONS):
            sizes = shape[2:] if layer.data_format == "channels_first" else shape[1:-1]
        if None in sizes:
            return None
        total += math.prod(size for size in sizes if size is not None)
    return total


def _multiples(full: int, of: int) -> Array:
    return np.append(np.arange(of, full, of), full)
