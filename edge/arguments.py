"""Checks of arguments, in one form of words: `name` must be ... Received: name=value."""

import inspect
import math
import numbers
import os
import reprlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

LARGEST = 2**31 - 1  # As a .tflite file stores integers.
MOST_THREADS = 1024  # More than any device has; a runtime given a million ends its process.
LONGEST = 366 * 24 * 3600.0  # A year: no work takes longer, and every clock can count it.

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100


def refuse(name: str, wanted: str, value: object, kind: type[Exception] = ValueError) -> NoReturn:
    """Raise the error of an argument that cannot be used.

    >>> from tfcompress.edge.arguments import refuse
    >>> refuse("threads", "an integer from 1", 0)
    Traceback (most recent call last):
    ...
    ValueError: `threads` must be an integer from 1. Received: threads=0

    Args:
        name: Name of the argument.
        wanted: What it must be, to follow "must be".
        value: What was given.
        kind: Class of the error. Defaults to ValueError.

    Raises:
        ValueError: Always; or another `kind` of error.
    """
    raise kind(f"`{name}` must be {wanted}. Received: {name}={_shown(value)}")


def check_integer(name: str, value: object, least: int, most: int = LARGEST) -> int:
    """Return an integer, or raise if it is none or out of range.

    >>> from tfcompress.edge.arguments import check_integer
    >>> check_integer("threads", 4, least=1)
    4

    Args:
        name: Name of the argument.
        value: What was given: an int or an integer of NumPy, no bool.
        least: Smallest value allowed.
        most: Largest value allowed. Defaults to 2**31 - 1, as a .tflite file stores integers.

    Returns:
        The value as an int.

    Raises:
        TypeError: It is no integer.
        ValueError: It is out of range.
    """
    wanted = f"an integer from {least}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        refuse(name, wanted, value, TypeError)
    if not least <= int(value) <= most:
        # A small number is not told of the limit of a file.
        told = most < LARGEST or int(value) > most
        refuse(name, f"{wanted} to {most}" if told else wanted, value)
    return int(value)


def as_number(name: str, wanted: str, value: object) -> float:
    """Return a number as a float, infinite if it is too large for one; raise TypeError if none."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        refuse(name, wanted, value, TypeError)
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def check_number(
    name: str,
    value: object,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """Return a finite number, or raise if it is none or out of range.

    >>> from tfcompress.edge.arguments import check_number
    >>> check_number("momentum", 1.0, 0, below=1)
    Traceback (most recent call last):
    ...
    ValueError: `momentum` must be a number from 0 to below 1. Received: momentum=1.0

    Args:
        name: Name of the argument.
        value: What was given: an int, a float or a number of NumPy, no bool.
        least: Smallest value allowed. Defaults to any.
        most: Largest value allowed. Defaults to any.
        above: The value must be above this one. Defaults to None, no such bound.
        below: The value must be below this one. Defaults to None, no such bound.

    Returns:
        The value as a float.

    Raises:
        TypeError: It is no number.
        ValueError: It is NaN, infinite or out of range.
    """
    low = f" above {above:g}" if above is not None else f" from {least:g}"
    high = f" to below {below:g}" if below is not None else f" to {most:g}"
    wanted = "a finite number" if math.isinf(most) and below is None else "a number"
    wanted += low if above is not None or math.isfinite(least) else ""
    wanted += high if below is not None or math.isfinite(most) else ""
    number = as_number(name, wanted, value)
    if (
        not math.isfinite(number)
        or not least <= number <= most
        or (above is not None and number <= above)
        or (below is not None and number >= below)
    ):
        refuse(name, wanted, value)
    return number


def check_seconds(name: str, value: object) -> float:
    """Return a time limit in seconds, or raise if it is none: above 0, at most a year.

    >>> from tfcompress.edge.arguments import check_seconds
    >>> check_seconds("timeout", 60)
    60.0

    Args:
        name: Name of the argument.
        value: What was given.

    Returns:
        The value as a float.

    Raises:
        TypeError: It is no number.
        ValueError: It is NaN, infinite or out of range.
    """
    wanted = "a number of seconds above 0, at most a year"
    seconds = as_number(name, wanted, value)
    if not 0 < seconds <= LONGEST:
        refuse(name, wanted, value)
    return seconds


def check_threads(value: object) -> int | None:
    """Return `threads`, a number of CPU threads or None for the runtime's default, or raise."""
    return None if value is None else check_integer("threads", value, 1, MOST_THREADS)


def check_batch_size(value: object) -> int:
    """Return `batch_size`, a number of samples, or raise."""
    return check_integer("batch_size", value, 1)


def check_bool(name: str, value: object) -> bool:
    """Return True or False, or raise if the value is another one.

    >>> from tfcompress.edge.arguments import check_bool
    >>> check_bool("strict", "no")
    Traceback (most recent call last):
    ...
    TypeError: `strict` must be True or False. Received: strict='no'

    Args:
        name: Name of the argument.
        value: What was given: a bool, perhaps of NumPy.

    Returns:
        The value as a bool.

    Raises:
        TypeError: It is no bool.
    """
    if not isinstance(value, bool | np.bool_):
        refuse(name, "True or False", value, TypeError)
    return bool(value)


def check_text(name: str, value: object) -> str:
    """Return a text, or raise if it is none or empty.

    >>> from tfcompress.edge.arguments import check_text
    >>> check_text("title", "Report")
    'Report'

    Args:
        name: Name of the argument.
        value: What was given.

    Returns:
        The value.

    Raises:
        TypeError: It is no str.
        ValueError: It is empty.
    """
    if not isinstance(value, str):
        refuse(name, "a text", value, TypeError)
    if not value:
        refuse(name, "a text that is not empty", value)
    return value


def check_choice(name: str, value: object, choices: Collection[str]) -> str:
    """Return one of several names, or raise if the value is none of them.

    >>> from tfcompress.edge.arguments import check_choice
    >>> check_choice("scope", "all", ("layer", "global"))
    Traceback (most recent call last):
    ...
    ValueError: `scope` must be one of 'layer', 'global'. Received: scope='all'

    Args:
        name: Name of the argument.
        value: What was given.
        choices: The names that there are.

    Returns:
        The value.

    Raises:
        TypeError: It is no str.
        ValueError: It is none of the names.
    """
    wanted = f"one of {', '.join(map(repr, choices))}"
    if not isinstance(value, str):
        refuse(name, wanted, value, TypeError)
    if value not in choices:
        refuse(name, wanted, value)
    return value


def check_function(name: str, value: object, *arguments: str) -> Callable[..., Any]:
    """Return a function, or raise if it cannot be called with so many arguments.

    >>> from tfcompress.edge.arguments import check_function
    >>> check_function("fine_tune", lambda model: None, "model", "step")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    TypeError: `fine_tune` must be a function that takes (model, step). Received: fine_tune=<...

    Args:
        name: Name of the argument.
        value: What was given.
        *arguments: What the function is called with, in words.

    Returns:
        The function.

    Raises:
        TypeError: It is no function, or takes other arguments.
    """
    wanted = f"a function that takes ({', '.join(arguments)})"
    if not callable(value) or isinstance(value, type):
        refuse(name, wanted, value, TypeError)
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # Builtin functions may not tell theirs.
        return value
    try:
        signature.bind(*arguments)
    except TypeError:
        refuse(name, wanted, value, TypeError)
    return value


def check_each(name: str, values: object, kind: type | tuple[type, ...], what: str) -> None:
    """Raise if a value is no list, or an entry of it has another type.

    >>> from tfcompress.edge.arguments import check_each
    >>> check_each("names", ["a", 3], str, "a text")
    Traceback (most recent call last):
    ...
    TypeError: `names[1]` must be a text. Received: names[1]=3

    Args:
        name: Name of the argument.
        values: What was given: a list or a tuple.
        kind: Type of each entry.
        what: The type in words.

    Raises:
        TypeError: It is no list, or an entry has another type.
    """
    if not isinstance(values, list | tuple):
        refuse(name, f"a list, each entry {what}", values, TypeError)
    for index, value in enumerate(values):
        if not isinstance(value, kind):
            refuse(f"{name}[{index}]", what, value, TypeError)


def check_path(name: str, value: object) -> Path:
    """Return a path, or raise if the value is none or empty.

    >>> from tfcompress.edge.arguments import check_path
    >>> check_path("path", "model.tflite").suffix
    '.tflite'

    Args:
        name: Name of the argument.
        value: What was given: a text, or an object with a path, such as `Converted`.

    Returns:
        The value as a `Path`.

    Raises:
        TypeError: It is neither a text nor an object with a path.
        ValueError: It is empty, or holds a character that no file name can have.
    """
    wanted = "the path of a file"
    if not isinstance(value, str | os.PathLike):
        refuse(name, wanted, value, TypeError)
    path = os.fspath(value)
    if not isinstance(path, str):
        refuse(name, wanted, value, TypeError)
    if not path or "\0" in path:
        refuse(name, wanted, value)
    return Path(path)


def _shown(value: object) -> str:
    """Return what a value looks like, cut to a readable length."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python writes out no integer of more than 4,300 digits.
        return "a number that is too long to write"
