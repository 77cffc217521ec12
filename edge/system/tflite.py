"""The .tflite file: whether it is one, and how large it is."""

import gzip
import os
from pathlib import Path

from ..arguments import check_path
from ..errors import ModelFileError

# FlatBuffers schema of TensorFlow Lite: the file identifier stands after the root offset.
_IDENTIFIER = b"TFL3"

# A file of 516 bytes, y = x + 1 on float32 rows of four: to find out whether a delegate works.
PROBE = Path(__file__).with_name("probe.tflite")


def check(path: str | os.PathLike[str]) -> Path:
    """Check that a file exists and starts like a .tflite file.

    >>> from tfcompress.edge.system import tflite
    >>> tflite.check("nowhere.tflite")
    Traceback (most recent call last):
    ...
    tfcompress.edge.errors.ModelFileError: nowhere.tflite: there is no such file

    Args:
        path: The file.

    Returns:
        The path, as a `Path`.

    Raises:
        TypeError: `path` is no path.
        ModelFileError: The file is missing, a folder, empty, cut off or another kind of file; the
            message names it and says what was found.
    """
    file = check_path("path", path)
    try:
        with file.open("rb") as stream:
            head = stream.read(8)
    except FileNotFoundError:
        raise ModelFileError(f"{file}: there is no such file") from None
    except IsADirectoryError:
        raise ModelFileError(f"{file}: this is a folder, not a .tflite file") from None
    except OSError as error:
        raise ModelFileError(f"{file}: cannot be read: {error.strerror}") from error
    if not head:
        raise ModelFileError(f"{file}: the file is empty")
    if len(head) < 8:
        raise ModelFileError(f"{file}: holds {len(head)} bytes, which is no .tflite file")
    if head[4:] != _IDENTIFIER:
        raise ModelFileError(
            f"{file}: not a .tflite file: bytes 4 to 7 are {head[4:]!r}, "
            f"where a .tflite file has {_IDENTIFIER!r}{_guess(head)}"
        )
    return file


def _guess(head: bytes) -> str:
    for start, kind in (
        (b"PK\x03\x04", "a zip file, such as .keras"),
        (b"\x89HDF", "an HDF5 file, such as .h5"),
        (b"\x1f\x8b", "a gzip file"),
    ):
        if head.startswith(start):
            return f". It looks like {kind}"
    return ""


def sizes(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Count the bytes of a file as it ships, and after gzip.

    Zeros in the weights do not make a file smaller by themselves, but they compress well, and app
    stores and HTTP send files compressed.

    Args:
        path: The file.

    Returns:
        Bytes, and bytes after gzip, at its usual level, 6.
    """
    data = Path(path).read_bytes()
    return len(data), len(gzip.compress(data, 6, mtime=0))
