"""A recording: the calls inside a layer, as `recording.record` found them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

__all__ = [
    "Call",
    "NotOpened",
    "Recording",
    "is_idle_cast",
    "same",
    "same_operation",
    "same_recording",
]


class NotOpened(ValueError):
    """A layer cannot be opened; the message says why, as the end of a sentence."""


@dataclass(frozen=True)
class Call:
    """A call of an operation.

    Attributes:
        operation: A layer, or an operation of `keras.ops`.
        args: Positional arguments, symbolic tensors among them.
        kwargs: Keyword arguments, in the same form.
        outputs: The symbolic outputs, as a flat list.
    """

    operation: Any
    args: Any
    kwargs: Any
    outputs: list[Any]


@dataclass(frozen=True)
class Recording:
    """The calls inside a layer.

    Attributes:
        inputs: The symbolic tensors that stand for those of the call, in the order of
            `keras.tree.flatten`, each followed by its mask if it has one.
        weights: For each weight or constant that the layer itself has: a symbolic tensor.
        calls: The calls, in an order in which they can be computed.
        outputs: The outputs, in the structure that the layer gives: symbolic tensors, and constants
            that depend on no input.
    """

    inputs: list[Any]
    weights: list[tuple[Any, Any]]
    calls: list[Call]
    outputs: Any


def is_idle_cast(operation: Any, args: Any) -> bool:
    """Return whether an operation casts its tensor to the dtype that this has already."""
    return type(operation).__name__ == "Cast" and bool(args[0].dtype == operation.dtype)


def same_operation(one: Any, other: Any) -> bool:
    """Return whether two operations compute the same: one layer, or alike but for their names."""
    if isinstance(one, keras.layers.Layer) or one is other:
        return one is other
    if type(one) is not type(other):
        return False
    ours, theirs = (
        {key: value for key, value in vars(op).items() if key != "name" and key[0] != "_"}
        for op in (one, other)
    )
    return ours.keys() == theirs.keys() and all(same(ours[k], theirs[k], {}) for k in ours)


def same(one: Any, other: Any, places: dict[int, int]) -> bool:
    """Return whether two arguments of calls are the same.

    Args:
        one: An argument in one recording.
        other: One in another recording.
        places: Id of a symbolic tensor of the first -> id of the one that the other has there.

    Returns:
        True or False.
    """
    if isinstance(one, keras.KerasTensor):
        return places.get(id(one)) == id(other)
    if one is other:
        return True
    try:
        return bool(np.array_equal(np.asarray(one), np.asarray(other)))
    except (TypeError, ValueError):
        return False


def same_recording(one: Recording, other: Recording) -> bool:
    """Return whether two recordings hold the same calls, in the same order, on the same tensors."""
    ends = [[*found.inputs, *(s for _, s in found.weights)] for found in (one, other)]
    if len(ends[0]) != len(ends[1]) or len(one.calls) != len(other.calls):
        return False
    places = dict(zip(map(id, ends[0]), map(id, ends[1]), strict=True))
    for ours, theirs in zip(one.calls, other.calls, strict=True):
        arguments = [keras.tree.flatten((call.args, call.kwargs)) for call in (ours, theirs)]
        if (
            not same_operation(ours.operation, theirs.operation)
            or len(arguments[0]) != len(arguments[1])
            or len(ours.outputs) != len(theirs.outputs)
            or not all(same(a, b, places) for a, b in zip(*arguments, strict=True))
        ):
            return False
        places.update(zip(map(id, ours.outputs), map(id, theirs.outputs), strict=True))
    flat = [keras.tree.flatten(found.outputs) for found in (one, other)]
    return len(flat[0]) == len(flat[1]) and all(
        same(a, b, places) for a, b in zip(*flat, strict=True)
    )
