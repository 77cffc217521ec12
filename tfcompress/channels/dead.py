"""Dead units: those that can be cut without a change of any output, and what replaces them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from tfcompress.cost.summary import ROUNDING
from tfcompress.model.dependency.units import Ids
from tfcompress.model.layers import rule_class

from .constants import Constant, constants
from .groups import ChannelGroup, ChannelGroups, GroupMember

__all__ = ["DeadUnits", "dead_units"]

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]

_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
_READ_THEIR_INPUT = (
    *(layers.Dense, *_CONVOLUTIONS, layers.SeparableConv1D, layers.SeparableConv2D),
    *(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
)


@dataclass(frozen=True, eq=False)
class DeadUnits:
    """The dead units of a model.

    Attributes:
        units: For each group that can be pruned, whether each unit is dead.
        read: For each kernel that reads constant dead units: the axis, the number of the unit at
            each position of the axis, and the constant there, or 0.
    """

    units: tuple[Bools, ...]
    read: tuple[tuple[GroupMember, Ids, Array], ...]

    def biases(self, removed: Ids) -> dict[int, Array]:
        """Return the biases that make up for constant units, by `id(variable)`.

        Args:
            removed: Numbers of the units that are removed, taken from `ChannelGroup.roots`.

        Returns:
            New values of the biases that change.
        """
        found: dict[int, Array] = {}
        for member, roots, value in self.read:
            here = np.where(np.isin(roots, removed), value, 0.0)
            if here.any():
                kernel = keras.ops.convert_to_numpy(member.variable).astype(np.float64)
                added = np.tensordot(here, kernel, (0, member.axis))
                bias = member.layer.bias
                old = found.get(id(bias), keras.ops.convert_to_numpy(bias))
                total = old.astype(np.float64) + added.reshape(-1, added.shape[-1]).sum(0)
                found[id(bias)] = total.astype(old.dtype)
        return found


def dead_units(groups: ChannelGroups) -> DeadUnits:
    """Return the units that can be cut without a change of any output, to float rounding.

    A unit is dead if nothing reads it: all weights that read it are zero, or lost beside the other
    weights in the rounding of float32. It is also dead if its value is a constant, and the bias of
    each layer that reads it can take this over: where no padding meets it. A unit that a layer
    normalizes over, or that is multiplied with another in a product of two tensors, is never dead.

    >>> from tfcompress import channel_groups
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    >>> _ = model.layers[1].kernel.assign(np.ones((3, 2)) * [[1], [0], [1]])
    >>> dead_units(channel_groups(model)).units
    (array([False,  True, False]),)

    Args:
        groups: The groups of a model.

    Returns:
        A `DeadUnits`.
    """
    roots = groups.coupling.roots()
    multiplied = {int(roots[unit]) for unit in groups.coupling.multiplied}
    mortal = [
        group.normalized_by is None and multiplied.isdisjoint(group.roots.tolist())
        for group in groups.prunable
    ]
    unread = _unread(groups, mortal)
    values = constants(groups.model) if any(mortal) else {}
    units, read = [], []
    for group, can_die, dead in zip(groups.prunable, mortal, unread, strict=True):
        if can_die:
            constant, here = _constant(groups, group, values)
            dead, here = dead | constant, [(m, at * constant[m.units]) for m, at in here]
            read += [
                (m, np.where(m.units >= 0, group.roots[m.units], -1), at)
                for m, at in here
                if at.any()
            ]
        units.append(dead)
    return DeadUnits(tuple(units), tuple(read))


def _unread(groups: ChannelGroups, mortal: list[bool]) -> list[Bools]:
    """Return for each group which units nothing reads, or only units that nothing reads."""
    members = groups.coupling.by_variable()
    readers = [_readers(group) for group in groups.prunable]
    weights = {
        id(m.variable): np.abs(keras.ops.convert_to_numpy(m.variable)).astype(np.float64)
        for group in groups.prunable
        for m in group.members
    }
    dead = [np.zeros(group.size, bool) for group in groups.prunable]
    while True:
        before = [units.sum() for units in dead]
        for group, can_die, reading, units in zip(
            groups.prunable, mortal, readers, dead, strict=True
        ):
            if not can_die or not reading:
                continue
            used = ~_read_by_any(group)
            for member in reading:
                made = {m.axis for m in members[id(member.variable)] if m.role == "output"}
                where = _used(weights[id(member.variable)], member.axis, made)
                used[member.units[where & (member.units >= 0)]] = True
            units |= ~used
            for member in group.members:
                if member.role == "output":  # What makes a dead unit reads nothing.
                    gone = (member.units >= 0) & units[member.units]
                    np.moveaxis(weights[id(member.variable)], member.axis, 0)[gone] = 0
        if [units.sum() for units in dead] == before:
            return dead


def _used(weights: Array, axis: int, made: set[int]) -> Bools:
    """Return for each position along an axis whether a weight there counts.

    Outputs may differ in scale, so each has a limit of its own; but what is below the rounding of
    the rounding of the largest weight of all counts for no output.
    """
    others = tuple(i for i in range(weights.ndim) if i not in made)
    largest = weights.max(axis=others, keepdims=True, initial=0)
    limit = ROUNDING * np.maximum(largest, ROUNDING * weights.max(initial=0))
    rest = tuple(i for i in range(weights.ndim) if i != axis)
    used: Bools = (weights > limit).any(axis=rest)
    return used


def _constant(
    groups: ChannelGroups, group: ChannelGroup, values: dict[int, Constant]
) -> tuple[Bools, list[tuple[GroupMember, Array]]]:
    """Return which units biases can take over, and the constants at each position of a reader."""
    constant = _read_by_any(group)
    here = []
    for member in _readers(group):
        at = _seen(groups, member, values)
        lost = np.isnan(at) if _takes_constants(member.layer) else at != 0
        constant[member.units[lost & (member.units >= 0)]] = False
        here.append((member, np.nan_to_num(at)))
    return constant, here


def _seen(groups: ChannelGroups, member: GroupMember, values: dict[int, Constant]) -> Array:
    """Return the constant at each position of the axis of a reader; NaN where there is none."""
    size = member.variable.shape[member.axis]
    nothing = np.full(size, np.nan)
    keys = [key for path, key, _ in groups.coupling.tensors if path == member.path]
    found = [values[key] for key in keys if key in values]
    whole = rule_class(member.layer) in _READ_THEIR_INPUT and len(keys) == len(found) > 0
    if not whole or any(len(one.known) != size for one in found):
        return nothing
    first = found[0]
    same = [one.known & (one.value == first.value) for one in found]
    return np.where(np.logical_and.reduce(same), first.value, np.nan)


def _takes_constants(layer: Any) -> bool:
    """Return whether a layer's bias can take over what its kernel makes of a constant."""
    if getattr(layer, "bias", None) is None:
        return False
    if rule_class(layer) is layers.Dense:
        return True
    # At a border, "same" padding lets a kernel see zeros in place of the constant.
    return rule_class(layer) in _CONVOLUTIONS and (
        layer.padding == "valid" or all(size == 1 for size in layer.kernel_size)
    )


def _readers(group: ChannelGroup) -> list[GroupMember]:
    return [member for member in group.members if member.role == "input"]


def _read_by_any(group: ChannelGroup) -> Bools:
    """Return which units a kernel reads at all; what else reads units, no weight shows."""
    read = np.zeros(group.size, bool)
    for member in _readers(group):
        read[member.units[member.units >= 0]] = True
    return read
