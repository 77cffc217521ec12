"""What takes long to find out about a .tflite file, and is found out when it is asked for."""

from __future__ import annotations

from pathlib import Path

from tfcompress.converters.errors import ModelFileError
from tfcompress.converters.jobs.run import ChildError, run
from tfcompress.edge.system.scratch import scratch_folder
from tfcompress.edge.system.tflite import sizes


def gzip_bytes(path: Path, size: int) -> int:
    """Compress a file that was read before.

    Args:
        path: The file.
        size: Its bytes when it was read.

    Returns:
        Its bytes after gzip.

    Raises:
        ModelFileError: The file is not there any more, or is another one.
    """
    try:
        found, packed = sizes(path)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be compressed any more: {error.strerror}") from error
    if found != size:
        raise ModelFileError(f"{path}: was changed after it was read: inspect it again")
    return packed


def load_error(path: Path, timeout: float | None) -> str | None:
    """Load a file into the runtime, in a child process.

    Args:
        path: The file.
        timeout: Seconds that the process gets; None for no limit.

    Returns:
        Why the runtime does not load it, or how the process ended; None if it does.
    """
    with scratch_folder() as folder:
        try:
            reply = run("jobs.read", {"path": str(path.resolve())}, folder, timeout)
        except ChildError as error:
            return f"the process that loaded it {error}"
    found: str | None = reply["load_error"]
    return found
