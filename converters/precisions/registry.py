"""The precisions that there are, by name."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from .base import Precision

P = TypeVar("P", bound=type[Precision])

_PRECISIONS: dict[str, type[Precision]] = {}


def register_precision(precision: P) -> P:
    """Make a precision known by its name: `tfcompress convert -p NAME` finds it then.

    A class decorator. `convert` takes an instance of any subclass of `Precision`, registered or
    not. On the command line, the module that registers the precision is given with `--import`.

    >>> from dataclasses import dataclass
    >>> from typing import ClassVar
    >>> from tfcompress import converters
    >>> @dataclass(frozen=True)
    ... class Another(converters.Precision):
    ...     name: ClassVar[str] = "int8"
    >>> converters.register_precision(Another)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: The precision name 'int8' is taken by Int8 in ...

    Args:
        precision: A frozen dataclass that subclasses `Precision` and has a `name`.

    Returns:
        The same class.

    Raises:
        TypeError: It is no subclass of `Precision`, or has no name.
        ValueError: Another class has the name.
    """
    if not (isinstance(precision, type) and issubclass(precision, Precision)):
        raise TypeError(f"Expected a subclass of Precision. Received: {precision!r}")
    if not isinstance(getattr(precision, "name", None), str):
        raise TypeError(f"{precision.__name__} has no name: add `name: ClassVar[str] = ...`")
    taken = _PRECISIONS.get(precision.name)
    # A module that is imported again defines its class again.
    if taken is not None and _place(taken) != _place(precision):
        raise ValueError(
            f"The precision name '{precision.name}' is taken by {taken.__name__} in "
            f"{taken.__module__}. Give {precision.__name__} another name."
        )
    _PRECISIONS[precision.name] = precision
    return precision


def _place(precision: type[Precision]) -> tuple[str, str]:
    return precision.__module__, precision.__qualname__


def registered_precisions() -> dict[str, type[Precision]]:
    """Return the registered precisions by name, in the order of registration."""
    return dict(_PRECISIONS)


def check_precision(precision: object, samples: Any = None) -> Precision:
    """Return the precision, by its name too, or raise an error that shows how one is written.

    Args:
        precision: A `Precision`, or the name of a registered one, which gets its defaults.
        samples: Calibration samples for a precision that is given by its name and takes some.

    Returns:
        The precision.

    Raises:
        TypeError: It is neither.
        ValueError: No precision has the name.
    """
    if isinstance(precision, Precision):
        return precision
    if isinstance(precision, str):
        return _by_name(precision, samples)
    choices = ", ".join(
        f"{cls.__name__}({'calibration=samples' if cls.needs_ranges else ''})"
        for cls in _PRECISIONS.values()
    )
    hint = ""
    if isinstance(precision, type) and issubclass(precision, Precision):
        hint = f" That is the class: add parentheses, {precision.__name__}()."
    raise TypeError(
        f"precision must be a name such as 'int8', or one of {choices}. "
        f"Received: precision={precision!r}.{hint}"
    )


def _by_name(name: str, samples: Any) -> Precision:
    found = _PRECISIONS.get(name)
    if found is None:
        names = ", ".join(repr(known) for known in _PRECISIONS)
        raise ValueError(f"precision must be one of {names}. Received: precision={name!r}")
    takes_samples = any(field.name == "calibration" for field in dataclasses.fields(found))
    given = {"calibration": samples} if takes_samples and samples is not None else {}
    return found(**given)
