"""Temporary files that a killed process leaves: who is at work holds a lock on them."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and nothing is removed
    fcntl = None  # type: ignore[assignment]

# Longer than a living process takes from making a file to locking it.
_SECONDS = 60.0


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a lock on a file or folder while the `with` block is open; the system ends it.

    Args:
        path: The file or folder.
    """
    handle = os.open(path, os.O_RDONLY) if fcntl else None
    try:
        if handle is not None:
            # A network folder may have no locks. What lies there for a minute is then fair game.
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Remove files and folders that nobody holds, if they are older than a minute and ours.

    Args:
        folder: Where they lie.
        pattern: What their names match, such as "tfcompress-scratch-*".
    """
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            _remove(path)


def _remove(path: Path) -> None:
    found = path.lstat()
    mine = fcntl is not None and found.st_uid == os.getuid()
    if not mine or path.is_symlink() or time.time() - found.st_mtime < _SECONDS:
        return
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if it is held
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        os.close(handle)
