"""Sums over weights and activations, by the unit that each position belongs to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from .groups import ChannelGroup, GroupMember

__all__ = ["as_array", "kernel_norm", "member_sums", "per_unit"]


def as_array(variable: keras.Variable) -> npt.NDArray[np.float64]:
    """Return the values of a weight in float64."""
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)


def per_unit(
    group: ChannelGroup, units: npt.NDArray[np.int64], values: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """Sum values along an axis by unit.

    Args:
        group: A group.
        units: For each position of the axis, the index of its unit in the group, or -1.
        values: One for each position.

    Returns:
        Array with a sum for each unit.
    """
    mine = units >= 0
    return np.bincount(units[mine], values[mine], group.size).astype(np.float64)


def member_sums(
    group: ChannelGroup, member: GroupMember, array: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """Sum an array of the shape of a member's weight by unit.

    Args:
        group: A group.
        member: One of its members.
        array: Values, one for each weight of the member's variable.

    Returns:
        Array with a sum for each unit.
    """
    others = tuple(axis for axis in range(array.ndim) if axis != member.axis)
    return per_unit(group, member.units, array.sum(others))


def kernel_norm(group: ChannelGroup, power: Callable[[Any], Any]) -> npt.NDArray[np.float64]:
    """Return the mean over the kernels of a group of the sum over each unit's weights.

    Args:
        group: A group.
        power: What is summed: a function of the weights, such as `np.square`.

    Returns:
        Array with a value for each unit; ones if the group has no kernels.
    """
    sums = [
        member_sums(group, member, power(as_array(member.variable)))
        for member in group.members
        if member.role != "parameter"
    ]
    return np.asarray(np.mean(sums, axis=0)) if sums else np.ones(group.size)
