"""The oldest release of the runtime that knows all ops of a file. Runs in child processes."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

NOTE = b"min_runtime_version"
"""Metadata in which the converter notes the oldest release that knows the versions of all ops."""

_SIZE = 16


def at_least(model: Any, release: str) -> None:
    """Note that a file needs a release, if it needs none that is newer.

    The releases of op versions are listed in TensorFlow's `runtime_version.cc`.

    Args:
        model: A `ModelT`, whose note is changed. A file without a note gets none.
        release: The release, such as "2.15.0".
    """
    for entry in model.metadata or ():
        if entry.name == NOTE:
            text = bytes(np.asarray(model.buffers[entry.buffer].data, np.uint8)).rstrip(b"\0")
            if _numbers(text.decode()) < _numbers(release):
                data = np.frombuffer(release.encode().ljust(_SIZE, b"\0"), np.uint8)
                entry.buffer = len(model.buffers)
                model.buffers.append(schema.BufferT(data=data))


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in release.split(".") if number)
