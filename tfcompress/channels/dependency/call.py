"""One call of an operation, as the rules for channels see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras

from . import axes
from .units import Coupling, Ids, Labelled, Labels, Role, fixed

__all__ = ["Call", "Rule", "check_activation", "kept"]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of an operation, with labels in the place of its tensors.

    Attributes:
        coupling: The book-keeping.
        operation: A layer, or an operation of `keras.ops`.
        path: Its path in the model.
        args: Positional arguments; labels are tuples of arrays.
        kwargs: The others.
        shapes: Of the outputs.
        key: Of this call: the same at each reading of the graph.
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
        """The first argument: labels, or a list of them."""
        return self.args[0] if self.args else next(iter(self.kwargs.values()))

    @property
    def x(self) -> Labels:
        """The first input."""
        labels: Labels = self.first
        return labels

    def tensors(self) -> list[Labelled]:
        """All labels among the arguments, however deep."""
        return list(_labelled((self.args, self.kwargs)))

    @property
    def channels(self) -> Ids:
        """The last axis of the first input."""
        ids = self.x[-1]
        assert ids is not None, self.path
        return ids

    def born(self, size: int, kind: str) -> Ids:
        """Units of an axis that the layer makes."""
        return self.coupling.born(self.operation, self.path, kind, size)

    def member(self, variable: Any, axis: int, role: Role, ids: Ids, layer: Any = None) -> None:
        """An axis of a weight runs over units; nothing if the layer does without that weight."""
        if variable is not None:
            self.coupling.member(self.path, layer or self.operation, variable, axis, role, ids)

    def size(self, entry: str, ids: Ids) -> None:
        """An entry of the config counts units."""
        self.coupling.size(self.operation, (entry,), ids)

    def keep(self, labels: Labels, reason: str) -> None:
        """Nothing can be cut from these axes."""
        axes.fix_all(self.coupling, labels, f"{reason} ({self.path})")


Rule: TypeAlias = Callable[[Call], Labels | list[Labels]]
"""What a call makes of its labels, and what it says to the book-keeping."""

_MIXING = {"softmax", "log_softmax", "sparsemax", "glu", "get", "serialize", "deserialize"}


def check_activation(call: Call, activation: Any, ids: Ids) -> None:
    """Keep units whose activation mixes them, or may do."""
    name = getattr(activation, "__name__", type(activation).__name__)
    known = getattr(keras.activations, name, None) is activation
    if activation is not None and (not known or name in _MIXING):
        call.keep((ids,), f"its activation {name} sees all of them at once")


def kept(call: Call) -> list[Labels]:
    """Of an operation without a rule: nothing that goes in or comes out is cut."""
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
