"""What a worker answers, checked: it may be of another version, or somebody else's."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ..system.child import ChildFailure
from ..system.machine import Machine

T = TypeVar("T")


@dataclass(frozen=True)
class Loaded:
    """The answer to "load".

    Attributes:
        load_ms: Milliseconds to construct the interpreter and allocate its tensors.
        input_shapes: Shape of each input, by name.
        machine: The machine that loaded the file.
        peak: Resident bytes at the peak; None where the system does not tell.
        base: Resident bytes before the file was loaded; None where the system does not tell.
        how: How the peak was measured.
    """

    load_ms: float
    input_shapes: dict[str, list[int]]
    machine: Machine
    peak: int | None
    base: int | None
    how: str


@dataclass(frozen=True)
class Round:
    """The answer to "round".

    Attributes:
        ns: Nanoseconds of each run; at least one.
    """

    ns: list[int]

    def __post_init__(self) -> None:
        if not self.ns:
            raise ValueError("ns is empty")


@dataclass(frozen=True)
class OpTimes:
    """The answer to "profile".

    Attributes:
        names: Name of each op that ran, in the order of execution.
        kernels: Whose kernel each one is.
        us: Mean microseconds of each one.
    """

    names: list[str]
    kernels: list[str]
    us: list[float]

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.kernels) == len(self.us):
            raise ValueError("names, kernels and us have different lengths")


def parse(kind: type[T], command: str, answer: Mapping[str, Any]) -> T:
    """Build the object that an answer describes.

    >>> from tfcompress.edge.targets.answers import Round, parse
    >>> parse(Round, "round", {"ns": [5]})
    Round(ns=[5])
    >>> parse(Round, "round", {"times": [5]})
    Traceback (most recent call last):
    ...
    tfcompress.edge.system.child.ChildFailure: error: the worker's answer to 'round' does not fit...

    Args:
        kind: A dataclass.
        command: What the worker was asked, for the error.
        answer: Its fields, as JSON values.

    Returns:
        The object.

    Raises:
        ChildFailure: A field is missing, unknown or of another type.
    """
    try:
        return _build(kind, answer)
    except (TypeError, ValueError) as error:
        raise ChildFailure(
            "error",
            f"the worker's answer to {command!r} does not fit this version of tfcompress.edge: "
            f"{error}",
        ) from None


def _build(kind: type[T], answer: Any) -> T:
    if not isinstance(answer, Mapping):
        raise TypeError(f"{answer!r} is no {kind.__name__}")
    hints = get_type_hints(kind)
    values = {
        name: _build(hints[name], value) if dataclasses.is_dataclass(hints.get(name)) else value
        for name, value in answer.items()
    }
    built = kind(**values)
    for name, value in vars(built).items():
        if not _fits(value, hints[name]):
            raise TypeError(f"{name} is {value!r}")
    return built


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a JSON value has a type such as `dict[str, int | None]`."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return any(_fits(value, option) for option in inner)
    if origin is list:
        return isinstance(value, list) and all(_fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(v, inner[1]) for v in value.values())
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else hint)
