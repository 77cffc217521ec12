"""`inspect`: a .tflite file -> its content."""

from __future__ import annotations

import os

from tfcompress.converters.errors import ModelFileError
from tfcompress.converters.jobs.bounded import Damaged
from tfcompress.edge.system.tflite import check

from .model import Inspection


def inspect(path: str | os.PathLike[str], timeout: float | None = 60.0) -> Inspection:
    """Read what is in a .tflite file: ops, tensors, types, scales, zeros, bytes.

    The file is read here, in milliseconds, within the bounds of its bytes: whatever is damaged in
    it is an error. Nothing is run; `Inspection.load_error` starts the runtime, in a child process,
    when it is asked for. TensorFlow is not imported.

    >>> import keras, tempfile
    >>> from tfcompress import converters
    >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="y")])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = converters.inspect(converters.convert(model, f"{folder}/tiny.tflite"))
    >>> found.ops
    {'FULLY_CONNECTED': 1}
    >>> found.signatures[0].inputs
    {'x': 0}

    Args:
        path: The file.
        timeout: Seconds that the runtime gets to load the file, if `load_error` is asked for; None
            for no limit. Defaults to 60.

    Returns:
        The content of the file.

    Raises:
        ModelFileError: The file is missing, empty, truncated, corrupt, or no .tflite file.
        ImportError: The runtime, ai-edge-litert, is not installed.
    """
    file = check(path)
    try:
        from tfcompress.converters.jobs.read import describe
    except ModuleNotFoundError as error:
        raise ImportError(
            "Reading .tflite files needs ai-edge-litert. "
            "Install it with: pip install 'tfcompress[tensorflow]'"
        ) from error
    try:
        read = describe(file.read_bytes())
    except OSError as error:
        raise ModelFileError(f"{file}: cannot be read: {error.strerror}") from error
    except Damaged as error:
        raise ModelFileError(
            f"{file}: starts like a .tflite file, but its content does not fit together: it is "
            f"truncated or corrupt. Reason: {error}."
        ) from error
    return Inspection.from_description(file, read, timeout)
