"""Write files whole or not at all."""

import contextlib
import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from .leftovers import held, remove_leftovers

_DRAFT = "tfcompress-draft"


def check_folder(path: Path) -> None:
    """Check that a file can be put into its folder, before the work that makes the file.

    Args:
        path: The file.

    Raises:
        ValueError: There is no such folder.
        PermissionError: The folder may not be written in.
    """
    if not path.parent.is_dir():
        raise ValueError(f"There is no folder '{path.parent}' to write '{path.name}' in: create it")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))


def write_whole(files: Mapping[Path, bytes]) -> None:
    """Write files so that each is there whole, or as it was before.

    All contents are written to temporary files beside the files first. These are renamed when all
    are complete. A file that is replaced keeps its permissions. Temporary files that a killed
    process left in the folder are removed.

    >>> import tempfile
    >>> from tfcompress.edge.system.files import write_whole
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_whole({Path(folder) / "a.txt": b"whole"})
    ...     (Path(folder) / "a.txt").read_text()
    'whole'

    Args:
        files: Content by path.

    Raises:
        OSError: A file cannot be written; the error names it. No file has changed then, unless a
            rename failed.
    """
    drafts = {path: path.resolve().with_name(f".{uuid4().hex}.{_DRAFT}") for path in files}
    for folder in {draft.parent for draft in drafts.values()}:
        remove_leftovers(folder, f".*.{_DRAFT}")
    try:
        with contextlib.ExitStack() as locks:
            for path, content in files.items():
                try:
                    _write(drafts[path], content, like=path, locks=locks)
                except OSError as error:
                    raise OSError(error.errno, error.strerror, os.fspath(path)) from error
            for path, draft in drafts.items():
                # Resolved, so that a link stays a link, and the file that it leads to is replaced.
                draft.replace(path.resolve())
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)


def _write(draft: Path, content: bytes, like: Path, locks: contextlib.ExitStack) -> None:
    """Write a new file, with the permissions of the file that it will replace, if there is one."""
    mode = stat.S_IMODE(like.stat().st_mode) if like.exists() else None
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    os.close(os.open(draft, flags, 0o666 if mode is None else 0o600))
    locks.enter_context(held(draft))
    draft.write_bytes(content)
    if mode is not None:
        draft.chmod(mode)
