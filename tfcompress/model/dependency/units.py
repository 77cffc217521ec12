"""Units: the positions of axes that must be kept or removed together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias

import keras
import numpy as np
import numpy.typing as npt

__all__ = ["FIXED", "Coupling", "Ids", "Labelled", "Labels", "Member", "Role", "Source", "fixed"]

Ids: TypeAlias = npt.NDArray[np.int64]
"""For each position of an axis, the number of the unit that it belongs to."""

FIXED = 0
"""The unit of all positions that must be kept."""

Labels: TypeAlias = tuple[Ids | None, ...]
"""The units of a tensor, axis by axis, the batch included; None where the size is not known."""

Role: TypeAlias = Literal["output", "input", "parameter"]


class Labelled(tuple[Ids | None, ...]):
    """Labels that stand for a tensor among the arguments of a call.

    Attributes:
        key: `id` of the symbolic tensor; 0 for a constant.
    """

    key: int

    def __new__(cls, labels: Iterable[Ids | None], key: int = 0) -> Self:
        """Return labels with the key of their tensor."""
        found = super().__new__(cls, labels)
        found.key = key
        return found


def fixed(shape: Sequence[int | None]) -> Labels:
    """Return the labels of a tensor from which nothing can be cut."""
    return tuple(None if size is None else np.full(size, FIXED) for size in shape)


@dataclass(frozen=True, eq=False)
class Source:
    """An axis that a layer makes, where units come from.

    Attributes:
        path: Path of the layer.
        layer: The layer.
        kind: What the units are: `"channels"`, `"units"`, `"heads"`.
        ids: The units.
    """

    path: str
    layer: Any
    kind: str
    ids: Ids


@dataclass(frozen=True, eq=False)
class Member:
    """An axis of a weight whose positions belong to units.

    Attributes:
        path: Path of the layer that holds the weight.
        layer: That layer.
        variable: The weight.
        axis: Which of its axes.
        role: Whether the axis runs over what a kernel makes, over what it reads, or over
            parameters beside a kernel: biases, and the parameters of normalization.
        ids: The units.
    """

    path: str
    layer: Any
    variable: keras.Variable
    axis: int
    role: Role
    ids: Ids


class Coupling:
    """Units, and which of them are coupled.

    Every layer that makes an axis gives each of its positions a new unit (`new_units`). Where two
    axes meet, their units become one, position by position (`unite`). Units that cannot be cut are
    marked with the reason (`fix`).

    Attributes:
        fixed_reason: Why units are kept that meet `FIXED` ones.
        sources: Axes that layers make.
        members: Axes of weights.
        sizes: For each operation, entries of its config that count units, by their place in it.
        slices: For each call of `GetItem` and axis, the units along it.
        scaled: Weights to multiply by the square root of the share of these units that is left.
        inputs: For each nested model, the labels of its inputs.
        axes: The units along each axis of each tensor; at least one of them must stay.
        tensors: Paths of layers with kernels, keys of the symbolic tensors that they are called
            with, and the units of their channels.
        paths: The path of the first call of each layer with kernels, by `id(layer)`.
        unknown: Paths and types of the operations for which there is no rule.
        normalized: For units that a layer normalizes over, the path of this layer. When one of
            them is cut, the others change.
        multiplied: Units that a product of two tensors sums over, which reads them without weights.
    """

    fixed_reason = "it meets an axis where nothing can be cut"

    def __init__(self) -> None:
        self._parents = [FIXED]
        self._reasons: dict[int, str] = {}
        self._known: dict[tuple[int, str], Source] = {}
        self.sources: list[Source] = []
        self.members: dict[tuple[int, int], Member] = {}
        self.sizes: dict[int, dict[tuple[str | int, ...], Ids]] = {}
        self.slices: dict[tuple[int, int], Ids] = {}
        self.scaled: dict[int, Ids] = {}
        self.inputs: dict[int, list[Labels]] = {}
        self.axes: list[Ids] = []
        self.tensors: list[tuple[str, int, Ids]] = []
        self.paths: dict[int, str] = {}
        self.unknown: dict[str, str] = {}
        self.normalized: dict[int, str] = {}
        self.multiplied: set[int] = set()

    def new_units(self, operation: object, path: str, part: str, size: int) -> Ids:
        """Return the units of an axis that a layer makes: equal ones at each of its calls."""
        key = (id(operation), part)
        if key not in self._known:
            ids = np.arange(len(self._parents), len(self._parents) + size)
            self._parents.extend(ids.tolist())
            self._known[key] = Source(path, operation, part, ids)
            self.sources.append(self._known[key])
        return self._known[key].ids

    def unite(self, a: Ids, b: Ids) -> None:
        """Make the units of two axes one, position by position."""
        for i, j in zip(a.tolist(), b.tolist(), strict=True):
            if i != j and FIXED in (i, j):
                self._reasons.setdefault(i or j, self.fixed_reason)
            elif i != j:
                self._parents[self._root(j)] = self._root(i)

    def fix(self, ids: Ids | None, reason: str) -> None:
        """Keep units, and say why."""
        for i in [] if ids is None else np.unique(ids).tolist():
            self._reasons.setdefault(i, reason)

    def _root(self, i: int) -> int:
        parents = self._parents
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    def roots(self) -> Ids:
        """Return for each unit the one that stands for all that are united with it."""
        return np.array([self._root(i) for i in range(len(self._parents))])

    def reasons(self) -> dict[int, str]:
        """Return why units must be kept, by the unit that stands for them."""
        found: dict[int, str] = {}
        for i, reason in self._reasons.items():
            found.setdefault(self._root(i), reason)
        return found

    def member(self, path: str, layer: Any, variable: Any, axis: int, role: Role, ids: Ids) -> None:
        """Note which units an axis of a weight runs over, at each call of the layer."""
        axis %= len(variable.shape)
        assert variable.shape[axis] == len(ids), (path, variable.shape, axis, len(ids))
        key = (id(variable), axis)
        if key in self.members:
            self.unite(self.members[key].ids, ids)
        else:
            self.members[key] = Member(path, layer, variable, axis, role, ids)

    def by_variable(self) -> dict[int, list[Member]]:
        """Return the members of each weight, by `id(variable)`."""
        found: dict[int, list[Member]] = {}
        for member in self.members.values():
            found.setdefault(id(member.variable), []).append(member)
        return found

    def size(self, operation: object, entry: tuple[str | int, ...], ids: Ids) -> None:
        """Note that an entry of the config of an operation counts units."""
        known = self.sizes.setdefault(id(operation), {})
        if entry in known:
            self.unite(known[entry], ids)
        else:
            known[entry] = ids
