"""The scope in which a model is traced for conversion."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_EXPORTING: ContextVar[bool] = ContextVar("exporting", default=False)


@contextlib.contextmanager
def exporting() -> Iterator[None]:
    """Make quantization-aware layers trace what the converter must see.

    While the scope is open in this thread, kernels are constants on the int8 grid, with batch
    normalization folded into them, and only activations are fake-quantized.

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
    """Return whether an `exporting` scope is open in this thread."""
    return _EXPORTING.get()
