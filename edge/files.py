"""Writing files whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4


def write_whole(files: Mapping[Path, bytes]) -> None:
    """Writes files so that each is there whole, or as it was before.

    All are written beside their targets first, and renamed when every one is complete.

    >>> import tempfile
    >>> from tfcompress.edge.files import write_whole
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_whole({Path(folder) / "a.txt": b"whole"})
    ...     (Path(folder) / "a.txt").read_text()
    'whole'

    Args:
        files: Path to content.

    Raises:
        OSError: A file cannot be written; none has changed then, unless a rename itself failed.
    """
    drafts = {target: target.with_name(f".{target.name}.{uuid4().hex}") for target in files}
    try:
        for target, content in files.items():
            drafts[target].write_bytes(content)
        for target, draft in drafts.items():
            draft.replace(target)
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
