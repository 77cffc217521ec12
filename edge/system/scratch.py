"""Folders for temporary files."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .leftovers import held, remove_leftovers

# Ours alone: leftovers that match are removed, and somebody may have a folder tfcompress-demo.
_PREFIX = "tfcompress-scratch-"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder for temporary files, which is removed at the end of the `with` block.

    Folders that killed processes left behind are removed, too.

    >>> from tfcompress.edge.system.scratch import scratch_folder
    >>> with scratch_folder() as folder:
    ...     _ = (folder / "a.txt").write_text("a")
    >>> folder.exists()
    False

    Yields:
        The folder.

    Raises:
        OSError: The disk is full; the message names the folder.
    """
    remove_leftovers(Path(tempfile.gettempdir()), f"{_PREFIX}*")
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name, held(Path(name)):
        try:
            yield Path(name)
        except OSError as error:
            if error.errno != errno.ENOSPC or not str(error.filename or name).startswith(name):
                raise
            text = (
                f"{os.strerror(errno.ENOSPC)} for temporary files, which take about twice the "
                "bytes of the weights. Free some, or set the environment variable TMPDIR to a "
                "folder on a larger disk"
            )
            raise OSError(errno.ENOSPC, text, str(Path(name).parent)) from error


def raise_if_full(said: str) -> None:
    """Raise an OSError if a message of another library says that the disk is full.

    Args:
        said: The message.

    Raises:
        OSError: It does.
    """
    full = os.strerror(errno.ENOSPC)
    if full in said:
        raise OSError(errno.ENOSPC, full)
