"""Which release of the runtime a file needs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .errors import ConversionError
from .passes.graph import OPS
from .passes.runtime_note import NOTE

Release = tuple[int, ...]

# The last tflite-runtime, which 32-bit Raspberry Pis have; see the extra `edge` in setup.cfg.
OLDEST: Release = (2, 14)


@dataclass(frozen=True)
class Needs:
    """What a file needs of the runtime.

    Attributes:
        release: The oldest release that knows its ops, as the converter notes it; () if the file
            does not say.
        versions: Op name -> its highest version in the file.
    """

    release: Release
    versions: dict[str, int]

    def newer_than(self, release: Release) -> bool:
        """Return whether a release is too old."""
        return self.release[:2] > release[:2]

    def __str__(self) -> str:
        latest = sorted(self.versions.items(), key=lambda item: -item[1])
        ops = ", ".join(f"{op} version {version}" for op, version in latest)
        return f"a runtime of release {as_text(self.release)} or newer for its ops, {ops}"


def parse_release(runtime: str) -> Release:
    """Return the numbers of a release.

    >>> parse_release("2.14.0")
    (2, 14, 0)

    Args:
        runtime: Two or three numbers, with points between them.

    Returns:
        The numbers.

    Raises:
        ValueError: It is written in another way.
    """
    if not isinstance(runtime, str) or not re.fullmatch(r"\d+(\.\d+){1,2}", runtime):
        raise ValueError(
            'runtime must be the release that the device has, such as "2.14". '
            f"Received: runtime={runtime!r}"
        )
    return tuple(int(number) for number in runtime.split("."))


def as_text(release: Release) -> str:
    """Return a release as it is written."""
    return ".".join(map(str, release))


def needs(path: Path) -> Needs:
    """Read what a file of the converter needs of the runtime.

    Args:
        path: The file.

    Returns:
        The release and the versions of the ops.
    """
    model = schema.Model.GetRootAs(np.memmap(path, np.uint8, "r"))
    versions: dict[str, int] = {}
    for index in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(index)
        name = OPS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        versions[name] = max(code.Version(), versions.get(name, 1))
    release: Release = ()
    for index in range(model.MetadataLength()):
        note = model.Metadata(index)
        if note.Name() == NOTE:
            text = model.Buffers(note.Buffer()).DataAsNumpy().tobytes().rstrip(b"\0").decode()
            release = parse_release(text) if text else ()
    return Needs(release, versions)


def check_runtime(needed: Needs, release: Release, label: str) -> None:
    """Check that a release of the runtime knows the ops of a file.

    Args:
        needed: What the file needs.
        release: The release.
        label: Name of the file in errors.

    Raises:
        ConversionError: The file needs a newer one; the message lists the versions of its ops.
    """
    if needed.newer_than(release):
        raise ConversionError(
            f"{label} was not written: it needs {needed}, and "
            f'runtime="{as_text(release)}" was asked for. Choose another precision, such as '
            "Float16(), or install a newer runtime on the device."
        )


def runtime_note(needed: Needs, label: str) -> str:
    """Return what to say of a file that the oldest runtime refuses; "" if that one loads it."""
    if not needed.newer_than(OLDEST):
        return ""
    return (
        f"{label} needs {needed}. tflite-runtime {as_text(OLDEST)}, for 32-bit Raspberry Pis, "
        f'refuses it. Pass runtime="{as_text(OLDEST)}" for a file that it loads, or '
        f'runtime="{as_text(needed.release[:2])}" if no device has it.'
    )
