"""The errors of loading and running a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .system.child import ChildFailure


class ModelFileError(ValueError):
    """The file is not a .tflite model: missing, empty, truncated, corrupt or something else."""


class ModelRefused(RuntimeError):
    """The file is a .tflite model, but this runtime or this delegate cannot run it."""


class DelegateUnavailable(RuntimeError):
    """The delegate that was asked for does not exist on this machine."""


class DelegateMismatch(RuntimeError):
    """The GPU's outputs differ from the CPU's on the same inputs, beyond the tolerance.

    Attributes:
        numbers: For the worst output: `output` (its name), `error` (the largest absolute
            difference), `tolerance` (the largest allowed), `peak` (the largest absolute value on
            the CPU), `unit` (`"absolute"` or `"steps"`), `off` and `size` (how many values are
            beyond the tolerance, of how many).
    """

    def __init__(self, message: str, numbers: Mapping[str, float | int | str]) -> None:
        super().__init__(message)
        self.numbers = dict(numbers)


def raised_by(failure: "ChildFailure", path: Path) -> Exception:
    """Return the error that a child process raised for a file.

    Args:
        failure: What became of the request.
        path: The file.

    Returns:
        An error of the class that was raised there, if it is one that users meet here; else a
        `ModelRefused`, which says how the process ended.
    """
    if failure.kind == DelegateMismatch.__name__:
        return DelegateMismatch(failure.reason, failure.numbers)
    for kind in (
        ModelFileError, ModelRefused, DelegateUnavailable, ImportError, TypeError, ValueError
    ):  # fmt: skip
        if failure.status == "refused" and failure.kind == kind.__name__:
            return kind(failure.reason)
    if failure.status == "crashed":
        return ModelRefused(
            f"{path}: the runtime crashed on this file: {failure.reason}. Another delegate may run "
            "it"
        )
    return ModelRefused(f"{path}: {failure.reason}")
