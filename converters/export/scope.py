"""A scope in which a model is traced for conversion, so that its layers can know."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_EXPORTING: ContextVar[bool] = ContextVar("exporting", default=False)


@contextlib.contextmanager
def exporting() -> Iterator[None]:
    """While it is open, quantization-aware layers trace what the converter should see.

    Kernels then are constants that lie on the int8 grid already, with batch normalization folded
    into them, and only activations carry fake-quantization. In this thread only.

    Example:
    >>> with exporting():
    ...     is_exporting()
    True
    >>> is_exporting()
    False
    """
    token = _EXPORTING.set(True)
    try:
        yield
    finally:
        _EXPORTING.reset(token)


def is_exporting() -> bool:
    """Whether an `exporting` scope is open in this thread."""
    return _EXPORTING.get()
