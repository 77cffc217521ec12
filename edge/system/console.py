"""Hold the runtime's console output back from the user's terminal."""

import contextlib
import ctypes
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

# File descriptors 1 and 2 belong to the whole process: one redirection at a time.
_LOCK = threading.RLock()


@dataclass
class Captured:
    """What was written to file descriptors 1 and 2 while `captured` was open.

    Attributes:
        text: The output, decoded; empty until the `with` block ends.
    """

    text: str = ""


@contextlib.contextmanager
def captured(enabled: bool = True) -> Iterator[Captured]:
    """Capture what C++ and Python write to file descriptors 1 and 2.

    TensorFlow Lite logs from C++, below `sys.stderr`, and no environment variable silences it. The
    two descriptors lead to a temporary file during the `with` block, and are restored after it,
    also after an exception. They belong to the whole process, so the output of other threads goes
    to that file, too: keep the block short.

    >>> import os
    >>> from tfcompress.edge.system.console import captured
    >>> with captured() as console:
    ...     _ = os.write(2, b"from C++")
    >>> console.text
    'from C++'

    Args:
        enabled: False captures nothing. Defaults to True.

    Yields:
        A `Captured`. Its `text` is set when the block ends.
    """
    result = Captured()
    if not enabled:
        yield result
        return
    with _LOCK, tempfile.TemporaryFile() as sink:
        _flush()
        saved: dict[int, int] = {}
        for descriptor in (1, 2):
            # A daemon or a pythonw process may have closed them.
            with contextlib.suppress(OSError):
                saved[descriptor] = os.dup(descriptor)
        try:
            for descriptor in saved:
                os.dup2(sink.fileno(), descriptor)
            yield result
        finally:
            _flush()
            for descriptor, copy in saved.items():
                os.dup2(copy, descriptor)
                os.close(copy)
            sink.seek(0)
            result.text = sink.read().decode("utf-8", "replace")


def attempt(call: Callable[[], Any], quiet: bool = True) -> tuple[Any, Exception | None, str]:
    """Call a function of the runtime with the console captured, and return its error.

    >>> from tfcompress.edge.system.console import attempt
    >>> attempt(lambda: 1 + 1)
    (2, None, '')

    Args:
        call: The function.
        quiet: False captures nothing. Defaults to True.

    Returns:
        What the function returned, or None after an error; the ValueError or RuntimeError that it
        raised, or None; and what it wrote to the console, which often says more than the error.
    """
    with captured(quiet) as console:
        try:
            result, error = call(), None
        except (ValueError, RuntimeError) as raised:
            result, error = None, raised
    return result, error, console.text


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    # C's own buffers; on Windows the C library is not the one that this would reach.
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
