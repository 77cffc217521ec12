"""One call of an operation, as the rules for channels see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras

from . import axes
from .units import Coupling, Ids, Labelled, Labels, Role, fixed

__all__ = ["Call", "Rule", "check_activation", "keep_all", "mixes_channels"]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of an operation, with labels in the place of its tensors.

    Attributes:
        coupling: Where the rule for the operation writes what it finds.
        operation: A layer, or an operation of `keras.ops`.
        path: Path of the operation in the model.
        args: Positional arguments, with labels (tuples of arrays) for tensors.
        kwargs: Keyword arguments, with labels for tensors.
        shapes: Shapes of the outputs.
        key: Identifies this call: it is equal each time that the graph is read.
    """

    coupling: Coupling
    operation: Any
    path: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shapes: list[tuple[int | None, ...]]
    key: int

    @property
    def first(self) -> Any:
        """Return the first argument: labels, or a list of labels."""
        return self.args[0] if self.args else next(iter(self.kwargs.values()))

    @property
    def x(self) -> Labelled:
        """Return the labels of the first input."""
        labels: Labelled = self.first
        return labels

    def tensors(self) -> list[Labelled]:
        """Return all labels among the arguments, however deep."""
        return list(_labelled((self.args, self.kwargs)))

    @property
    def channels(self) -> Ids:
        """Return the units along the last axis of the first input."""
        ids = self.x[-1]
        assert ids is not None, self.path
        return ids

    def new_units(self, size: int, kind: str) -> Ids:
        """Return new units for an axis that the layer makes."""
        return self.coupling.new_units(self.operation, self.path, kind, size)

    def member(self, variable: Any, axis: int, role: Role, ids: Ids, layer: Any = None) -> None:
        """Note that an axis of a weight runs over units, unless the layer has no such weight."""
        if variable is not None:
            self.coupling.member(self.path, layer or self.operation, variable, axis, role, ids)

    def size(self, entry: str, ids: Ids) -> None:
        """Note that an entry of the layer's config counts units."""
        self.coupling.size(self.operation, (entry,), ids)

    def keep(self, labels: Labels, reason: str) -> None:
        """Note that nothing can be cut from these axes."""
        axes.fix_all(self.coupling, labels, f"{reason} ({self.path})")


Rule: TypeAlias = Callable[[Call], Labels | list[Labels]]
"""Returns the labels of the outputs of a call, and notes in its `coupling` what is coupled."""

_MIXING = {"softmax", "log_softmax", "sparsemax", "glu", "get", "serialize", "deserialize"}


def check_activation(call: Call, activation: Any, ids: Ids) -> None:
    """Keep units whose activation mixes them, or may mix them."""
    if mixes_channels(activation):
        name = getattr(activation, "__name__", type(activation).__name__)
        call.keep((ids,), f"its activation {name} sees all of them at once")


def mixes_channels(activation: Any) -> bool:
    """Return whether an activation mixes channels, or may mix them, because it is not Keras' own.

    >>> mixes_channels(keras.activations.relu), mixes_channels(keras.activations.softmax)
    (False, True)

    Args:
        activation: A function, or None.

    Returns:
        True or False.
    """
    name = getattr(activation, "__name__", type(activation).__name__)
    known = getattr(keras.activations, name, None) is activation
    return activation is not None and (not known or name in _MIXING)


def keep_all(call: Call) -> list[Labels]:
    """Keep all inputs and outputs of an operation that has no rule."""
    call.coupling.unknown[call.path] = type(call.operation).__name__
    for labels in call.tensors():
        call.keep(labels, f"there is no rule for {type(call.operation).__name__}")
    return [fixed(shape) for shape in call.shapes]


def _labelled(arguments: Any) -> Iterator[Labelled]:
    if isinstance(arguments, Labelled):
        yield arguments
    elif isinstance(arguments, list | tuple):
        for part in arguments:
            yield from _labelled(part)
    elif isinstance(arguments, dict):
        for part in arguments.values():
            yield from _labelled(part)
