"""`inspect`: a .tflite file -> its content."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tfcompress.converters.errors import ModelFileError
from tfcompress.converters.jobs.run import ChildError, run
from tfcompress.edge.arguments import check_seconds
from tfcompress.edge.system.tflite import check

from .model import Inspection


def inspect(path: str | os.PathLike[str], timeout: float | None = 60.0) -> Inspection:
    """Read what is in a .tflite file: ops, tensors, types, scales, zeros, bytes.

    A child process reads the file and loads it into the runtime, so that a corrupt file is an
    error and never ends your process. TensorFlow is not imported.

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
        timeout: Seconds after which reading stops with an error; None for no limit. Defaults to
            60.

    Returns:
        The content of the file.

    Raises:
        ModelFileError: The file is missing, empty, truncated, corrupt, or no .tflite file.
        ImportError: The runtime, ai-edge-litert, is not installed.
    """
    if timeout is not None:
        check_seconds("timeout", timeout)
    file = check(path)
    with tempfile.TemporaryDirectory(prefix="tfcompress-") as folder:
        request = {"path": str(file.resolve())}
        try:
            read = run("jobs.read", request, Path(folder), timeout)
        except ChildError as error:
            if "No module named" in error.log:
                raise ImportError(
                    "Reading .tflite files needs ai-edge-litert. "
                    "Install it with: pip install 'tfcompress[tensorflow]'"
                ) from error
            raise ModelFileError(
                f"{file}: starts like a .tflite file but cannot be read, so it is probably "
                f"truncated or corrupt. Reading it {error}"
            ) from error
    if "invalid" in read:
        raise ModelFileError(
            f"{file}: starts like a .tflite file, but its content does not fit together: it is "
            f"truncated or corrupt. Reason: {read['invalid']}."
        )
    return Inspection.from_description(file, read)
