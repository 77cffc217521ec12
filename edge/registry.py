"""A registry: objects by name, to which others can add theirs."""

from typing import Generic, Protocol, TypeVar

from .arguments import check_choice


class Named(Protocol):
    """An object with a name."""

    @property
    def name(self) -> str:
        """Return the name."""


T = TypeVar("T", bound=Named)


class Registry(Generic[T]):
    """Objects by name, in the order in which they were added.

    >>> from tfcompress.edge.registry import Registry
    >>> from tfcompress.edge.targets.local import Local
    >>> targets = Registry[Local]("target")
    >>> targets.add(Local())
    >>> targets.names()
    ('local',)
    >>> targets.get("pi")
    Traceback (most recent call last):
    ...
    ValueError: `target` must be one of 'local'. Received: target='pi'

    Args:
        kind: What the objects are, for messages: "target".
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._items: dict[str, T] = {}

    def add(self, item: T) -> None:
        """Add an object under its name.

        Args:
            item: The object.

        Raises:
            ValueError: There is another object of this name.
        """
        if self._items.setdefault(item.name, item) != item:
            raise ValueError(
                f"There is a {self._kind} named {item.name!r} already. Choose another name"
            )

    def names(self) -> tuple[str, ...]:
        """Return all names."""
        return tuple(self._items)

    def get(self, name: str) -> T:
        """Return the object of a name.

        Args:
            name: The name.

        Returns:
            The object.

        Raises:
            TypeError: The name is no text.
            ValueError: There is no object of this name; the message lists all names.
        """
        return self._items[check_choice(self._kind, name, self.names())]
