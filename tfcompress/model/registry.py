"""Functions that are found by name: what ships with the package, and what a user's module adds."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from tfcompress.edge.arguments import check_choice, check_text, refuse

__all__ = ["Registry"]

Function = TypeVar("Function", bound=Callable[..., Any])


class Registry(Generic[Function]):
    """Functions of one kind by name, each with what it needs.

    >>> shapes = Registry("shape", needs=("nothing", "a size"))
    >>> @shapes.register("square", needs="a size")
    ... def square(size): return (size, size)
    >>> shapes.names(), shapes.get("square")(3), shapes.needs("square")
    (['square'], (3, 3), 'a size')

    Args:
        kind: What the functions are, for errors: `"importance of channels"`.
        needs: What a function may need, the default first.
    """

    def __init__(self, kind: str, needs: tuple[str, ...] = ("weights",)) -> None:
        self._kind = kind
        self._possible = needs
        self._found: dict[str, tuple[Function, str]] = {}

    def register(self, name: str, needs: str | None = None) -> Callable[[Function], Function]:
        """Return a decorator that adds a function under a name.

        >>> sizes = Registry("size")
        >>> @sizes.register("one")
        ... def one(): return 1
        >>> sizes.names()
        ['one']

        Args:
            name: Name of the function. A module that is run again may replace its own function.
            needs: What the function needs. Defaults to the first of the kinds that there are.

        Returns:
            A decorator that returns the function as it is.

        Raises:
            TypeError: If `name` or `needs` is no text, or what is decorated no function.
            ValueError: If another function has the name, or `needs` is none of the kinds.
        """
        check_text("name", name)
        wanted = self._possible[0] if needs is None else needs
        check_choice("needs", wanted, self._possible)

        def add(function: Function) -> Function:
            if not callable(function):
                refuse("function", f"a function, the {self._kind} {name!r}", function, TypeError)
            if name in self._found and _place(self._found[name][0]) != _place(function):
                raise ValueError(
                    f"There is another {self._kind} named {name!r}: "
                    f"{'.'.join(_place(self._found[name][0]))}. Register yours under another name."
                )
            self._found[name] = (function, wanted)
            return function

        return add

    def names(self, *needs: str) -> list[str]:
        """Return the sorted names of all functions, or of all that need one of `needs`."""
        return sorted(name for name, (_, need) in self._found.items() if not needs or need in needs)

    def get(self, name: str) -> Function:
        """Return the function of a name.

        Raises:
            ValueError: If there is none.
        """
        return self._entry(name)[0]

    def needs(self, name: str) -> str:
        """Return what the function of a name needs.

        Raises:
            ValueError: If there is none.
        """
        return self._entry(name)[1]

    def _entry(self, name: str) -> tuple[Function, str]:
        if name not in self._found:
            close = difflib.get_close_matches(name, self._found, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"There is no {self._kind} named {name!r}. There are: "
                f"{', '.join(self.names())}.{hint} Register your own with `register`."
            )
        return self._found[name]


def _place(function: Any) -> tuple[str, str]:
    return function.__module__, function.__qualname__
