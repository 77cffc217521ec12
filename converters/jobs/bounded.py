"""Tables of a FlatBuffer that may be damaged, read within bounds. Imports its siblings only.

An offset or a length in a damaged file may lead anywhere. Python never reads outside the bytes, but
a few lengths that multiply each other could keep it busy for hours.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

# Bytes that a table takes at least; and how often each byte may be read, since some files store
# equal parts once, and subgraphs share weights.
_TABLE = 8
_SHARED = 4


class Damaged(ValueError):
    """The content of a file does not fit together; the message says what does not."""


class Bounded:
    """Reads the vectors of tables, and counts what was read.

    >>> from tfcompress.converters.jobs.bounded import Bounded
    >>> Bounded(b"eight...").count(1_000)
    Traceback (most recent call last):
    ...
    tfcompress.converters.jobs.bounded.Damaged: it claims more parts than 8 bytes can hold

    Args:
        content: The whole file.
    """

    def __init__(self, content: bytes) -> None:
        self._size = len(content)
        self._left = _SHARED * len(content)

    def count(self, parts: int) -> None:
        """Count parts of the file.

        Args:
            parts: Number of numbers that are about to be read, or as many bytes for a table.

        Raises:
            Damaged: The file cannot hold so many.
        """
        self._left -= parts
        if self._left < 0:
            raise Damaged(f"it claims more parts than {self._size} bytes can hold")

    def tables(self, owner: Any, name: str) -> list[Any]:
        """Return a vector of tables, such as `tables(model, "Subgraphs")`; it may be empty."""
        length = getattr(owner, f"{name}Length")()
        self.count(_TABLE * length)
        return [getattr(owner, name)(i) for i in range(length)]

    def numbers(self, owner: Any, name: str) -> Array | None:
        """Return a view of a vector of numbers, such as "Data"; None if there is none."""
        if owner is None or getattr(owner, f"{name}IsNone")():
            return None
        values: Array = getattr(owner, f"{name}AsNumpy")()
        return values

    def integers(self, owner: Any, name: str) -> list[int]:
        """Return a vector of numbers as a list; an empty one if there is none."""
        values = self.numbers(owner, name)
        if values is None:
            return []
        self.count(values.size)
        return [int(value) for value in values]
