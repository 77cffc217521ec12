"""Write files whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4


def write_whole(files: Mapping[Path, bytes]) -> None:
    """Write files so that each is there whole, or as it was before.

    All contents are written to temporary files beside the files first. These are renamed when all
    are complete.

    >>> import tempfile
    >>> from tfcompress.edge.system.files import write_whole
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_whole({Path(folder) / "a.txt": b"whole"})
    ...     (Path(folder) / "a.txt").read_text()
    'whole'

    Args:
        files: Content by path.

    Raises:
        OSError: A file cannot be written. No file has changed then, unless a rename failed.
    """
    drafts = {path: path.resolve().with_name(f".{uuid4().hex}.tmp") for path in files}
    try:
        for path, content in files.items():
            drafts[path].write_bytes(content)
        for path, draft in drafts.items():
            # Resolved, so that a link stays a link, and the file that it leads to is replaced.
            draft.replace(path.resolve())
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
