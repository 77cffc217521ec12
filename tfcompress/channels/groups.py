"""Groups of channels that can only be cut together, as objects that print themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import keras
import numpy as np
import numpy.typing as npt
from rich.table import Table

from tfcompress.edge.shown import Shown
from tfcompress.model.dependency.units import Coupling, Ids, Role
from tfcompress.model.tables import as_text, new_table

__all__ = ["ChannelGroup", "ChannelGroups", "GroupMember"]


@dataclass(frozen=True, eq=False)
class GroupMember:
    """An axis of a weight that gets shorter with its group.

    Attributes:
        path: Path of the layer.
        layer: The layer.
        variable: The weight.
        axis: Its axis.
        role: Whether the axis runs over the outputs of a kernel (`"output"`), over its inputs
            (`"input"`), or over biases and parameters of normalization (`"parameter"`).
        units: For each position, the index of its unit in the group; -1 if it is in none.
    """

    path: str
    layer: Any
    variable: keras.Variable
    axis: int
    role: Role
    units: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Axes that can only be cut together, unit by unit.

    >>> from tfcompress import channel_groups
    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(8, name="a"), keras.layers.Dense(2, name="b")])
    >>> group = channel_groups(model)[0]
    >>> group.size, group.kind, group.producers, group.consumers
    (8, 'units', ('a',), ('b',))

    Attributes:
        kind: What a unit is: `"channels"`, `"units"`, `"width"`, `"heads"`, ...
        size: Number of units. One may be several positions of an axis.
        producers: Paths of the layers that make them.
        consumers: Paths of the layers whose kernels read them.
        members: The axes of weights.
        tensors: Keys of the tensors that kernels read the units from, with the index of the unit of
            each channel, or -1.
        why_kept: Why nothing of the group can be cut, or None.
        normalized_by: Path of a layer that normalizes over the units, or None. The other units
            then change when one is cut, even one that nothing reads.
        roots: Numbers of the units in the model's `Coupling`.
    """

    kind: str
    size: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    members: tuple[GroupMember, ...]
    tensors: tuple[tuple[int, npt.NDArray[np.int64]], ...] = field(repr=False)
    why_kept: str | None
    normalized_by: str | None
    roots: Ids = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the numbers of single units, ready for JSON."""
        return {
            "kind": self.kind,
            "size": self.size,
            "producers": list(self.producers),
            "consumers": list(self.consumers),
            "members": [
                {"path": m.path, "weight": m.variable.name, "axis": m.axis, "role": m.role}
                for m in self.members
            ],
            "why_kept": self.why_kept,
            "normalized_by": self.normalized_by,
        }

    def __str__(self) -> str:
        return (
            f"{self.size} {self.kind} of {', '.join(self.producers)}; read by "
            f"{', '.join(self.consumers) or 'none'}"
            + (f"; kept: {self.why_kept}" if self.why_kept else "")
        )


@dataclass(frozen=True, eq=False)
class ChannelGroups(Shown, Sequence[ChannelGroup]):
    """All groups of a model. Printing it gives a table.

    >>> from tfcompress import channel_groups
    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(8, name="a"), keras.layers.Dense(2, name="b")])
    >>> groups = channel_groups(model)
    >>> len(groups), len(groups.prunable)
    (2, 1)

    Attributes:
        model: The model, functional.
        groups: The groups, in the order of the model.
        coupling: The coupled units that the groups were collected from.
    """

    model: keras.Model = field(repr=False)
    groups: tuple[ChannelGroup, ...]
    coupling: Coupling = field(repr=False)

    @overload
    def __getitem__(self, index: int) -> ChannelGroup: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ChannelGroup, ...]: ...
    def __getitem__(self, index: int | slice) -> ChannelGroup | tuple[ChannelGroup, ...]:
        return self.groups[index]

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def prunable(self) -> tuple[ChannelGroup, ...]:
        """Return the groups from which something can be cut."""
        return tuple(group for group in self.groups if group.why_kept is None)

    @property
    def unknown(self) -> dict[str, str]:
        """Return paths and types of operations without a rule; all around them is kept."""
        return self.coupling.unknown

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the numbers of single units, ready for JSON."""
        return {
            "name": self.model.name,
            "groups": [group.to_dict() for group in self.groups],
            "unknown": self.unknown,
        }

    def table(self) -> Table:
        """Return a table with a row for each group.

        Returns:
            `rich.table.Table`.
        """
        table = new_table(
            ("Units", "Kind", "Made by", "Read by", "Kept, because"), title=self.model.name
        )
        for group in self.groups:
            table.add_row(
                str(group.size),
                group.kind,
                _listed(group.producers),
                _listed(group.consumers),
                group.why_kept or "",
            )
        if self.unknown:
            listed = ", ".join(f"{path} ({kind})" for path, kind in self.unknown.items())
            table.caption = f"No rule for: {listed}. Their inputs and outputs are kept."
        return table

    def __rich__(self) -> Table:
        return self.table()

    def __str__(self) -> str:
        return as_text(self.table(), width=100)


def _listed(paths: Sequence[str], limit: int = 4) -> str:
    more = len(paths) - limit
    return ", ".join(paths[:limit]) + (f" and {more} more" if more > 0 else "")
