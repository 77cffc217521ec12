"""Arrays in a file, on their way between two processes."""

import base64
import io
import os
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .tensors import Array


def save_arrays(path: str | os.PathLike[str] | BinaryIO, arrays: Sequence[Any]) -> None:
    """Write arrays to an .npz file.

    >>> import tempfile
    >>> from tfcompress.edge.arrays import load_arrays, save_arrays
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_arrays(f"{folder}/a.npz", [np.zeros(2), np.array([b"a", b"bc"], object)])
    ...     load_arrays(f"{folder}/a.npz")
    [array([0., 0.]), array([b'a', b'bc'], dtype=object)]

    Args:
        path: The file, or an open one.
        arrays: The arrays. Objects are strings, as bytes or str.
    """
    # An array of objects would need pickle; one of bytes has one width, and loses zeros at the end.
    parts: dict[str, Array] = {}
    for index, array in enumerate(map(np.asarray, arrays)):
        if array.dtype.kind == "O":
            strings = [s.encode() if isinstance(s, str) else s for s in array.flat]
            parts[f"ends_{index}"] = np.cumsum([len(string) for string in strings], dtype=np.int64)
            parts[f"shape_{index}"] = np.array(array.shape, np.int64)
            array = np.frombuffer(b"".join(strings), np.uint8)
        parts[f"arr_{index}"] = array
    with Path(path).open("wb") if isinstance(path, str | os.PathLike) else nullcontext(path) as out:
        np.savez(out, **parts)  # type: ignore[arg-type]


def load_arrays(path: str | os.PathLike[str] | BinaryIO) -> list[Array]:
    """Read the arrays that `save_arrays` wrote.

    Args:
        path: The file, or an open one.

    Returns:
        The arrays, in their order.
    """
    arrays: list[Array] = []
    with np.load(path, allow_pickle=False) as stored:
        while (name := f"arr_{len(arrays)}") in stored:
            array, ends = stored[name], f"ends_{len(arrays)}"
            if ends in stored:
                joined, stops = array.tobytes(), [0, *stored[ends]]
                shape = stored[f"shape_{len(arrays)}"]
                array = np.empty(len(stops) - 1, object)
                array[:] = [joined[a:b] for a, b in pairwise(stops)]
                array = array.reshape(shape)
            arrays.append(array)
    return arrays


def to_text(arrays: Sequence[Any]) -> str:
    """Return arrays as a text, which goes where no file is shared: an .npz file in Base64.

    >>> from tfcompress.edge.arrays import from_text, to_text
    >>> from_text(to_text([np.zeros(2)]))
    [array([0., 0.])]

    Args:
        arrays: The arrays. Objects are strings, as bytes or str.

    Returns:
        The text.
    """
    stream = io.BytesIO()
    save_arrays(stream, arrays)
    return base64.b64encode(stream.getvalue()).decode()


def from_text(text: str) -> list[Array]:
    """Return the arrays that `to_text` made a text of.

    Args:
        text: The text.

    Returns:
        The arrays, in their order.
    """
    return load_arrays(io.BytesIO(base64.b64decode(text)))
