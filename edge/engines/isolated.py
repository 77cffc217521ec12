"""A file that is loaded and run in a child process, here or on another machine."""

import contextlib
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import from_text, load_arrays, save_arrays, to_text
from ..errors import raised_by
from ..system.child import ChildFailure
from ..system.scratch import scratch_folder
from ..targets.base import Target
from ..targets.local import LOCAL, Local
from ..tensors import Array, TensorInfo


class IsolatedEngine:
    """The engine of a delegate, in a worker; see `Engine`.

    The worker compares the outputs with the CPU's, if the delegate needs that.

    Args:
        path: A file that `tflite.check` accepted.
        delegate: Name of the delegate.
        threads: Number of CPU threads; None takes the runtime's default.
        signature: Name of the signature; None takes the first.
        tolerance: Largest difference from the CPU that is allowed, where that is compared; None
            takes the usual one.
        target: The machine of the worker. Defaults to `Local()`, this one.

    Attributes:
        close: Ends the process; does nothing the second time.

    Raises:
        ModelRefused: The runtime cannot load the file, or died of it.
        ModelFileError: The file is corrupt.
        DelegateUnavailable: This machine has no such delegate.
        ValueError: The file has no such signature.
        ImportError: No LiteRT runtime is installed.
        OSError: The target cannot be reached.
    """

    def __init__(
        self,
        path: Path,
        delegate: str,
        threads: int | None,
        signature: str | None,
        tolerance: float | None,
        target: Target = LOCAL,
    ) -> None:
        self.path = path
        self._arrays: Mapping[str, Array] = {}
        self._results: dict[str, Array] = {}
        stack = contextlib.ExitStack()
        # Also when Python ends, or nobody holds the engine any more.
        self.close = weakref.finalize(self, stack.close)
        try:
            # Another machine reads no files of this one.
            self._sent = not isinstance(target, Local)
            self._folder = stack.enter_context(scratch_folder())
            session = stack.enter_context(target.session([path]))
            self._child, [there] = session.child, session.paths
            found = self._ask(
                "open", path=there, delegate=delegate, threads=threads, signature=signature,
                tolerance=tolerance,
            )  # fmt: skip
        except BaseException:
            self.close()
            raise
        self.load_ns = int(found["load_ns"])
        self.inputs = tuple(TensorInfo.from_dict(info) for info in found["inputs"])
        self.outputs = tuple(TensorInfo.from_dict(info) for info in found["outputs"])

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        try:
            return self._child.request(command, None, **arguments)
        except ChildFailure as failure:
            raise raised_by(failure, self.path) from None

    def prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Do nothing: the worker resizes the inputs to the arrays that it gets."""

    def write(self, arrays: Mapping[str, Array]) -> None:
        """Keep the inputs for `invoke`, by name."""
        self._arrays = arrays

    def invoke(self) -> None:
        """Run the model once, in the worker."""
        if not self.close.alive:
            raise ValueError(f"{self.path}: this Runner is closed; `reset` opens it again")
        names, arrays = list(self._arrays), list(self._arrays.values())
        if self._sent:
            answer = self._ask("run_sent", inputs=to_text(arrays), names=names)
            found = from_text(answer["outputs"])
        else:
            inputs, outputs = self._folder / "inputs.npz", self._folder / "outputs.npz"
            save_arrays(inputs, arrays)
            self._ask("run", inputs=str(inputs), names=names, outputs=str(outputs))
            found = load_arrays(outputs)
        self._results = dict(zip((info.name for info in self.outputs), found, strict=True))

    def read(self) -> dict[str, Array]:
        """Return copies of the outputs of the last `invoke` by name, in the file's own types."""
        return {name: np.array(array) for name, array in self._results.items()}
