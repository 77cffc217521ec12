"""What an engine is, what a delegate is, and the registry of delegates."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from ..registry import Registry
from ..tensors import Array, TensorInfo


class Engine(Protocol):
    """A file that a runtime has loaded, ready to run.

    One run is `prepare`, `write`, `invoke`, `read`. Benchmarks time `invoke` alone, so it ends when
    the outputs are there, and copies nothing that `write` and `read` can copy.

    Attributes:
        path: The .tflite file.
        inputs: The inputs of the signature, sorted by name.
        outputs: The outputs of the signature, sorted by name.
        load_ns: Nanoseconds that loading took.
    """

    path: Path
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    load_ns: int

    def prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Resize the inputs to these shapes, by input name.

        Raises:
            ModelRefused: The runtime cannot run the model with these shapes.
        """

    def write(self, arrays: Mapping[str, Array]) -> None:
        """Copy the inputs in, by name; each has the tensor's type and its prepared shape.

        Raises:
            ModelRefused: The runtime takes no input of this type.
        """

    def invoke(self) -> None:
        """Run the model once, to the end.

        Raises:
            ModelRefused: The runtime failed.
        """

    def read(self) -> dict[str, Array]:
        """Return the outputs of the last `invoke` by name, in the file's own types."""


@dataclass(frozen=True)
class Availability:
    """The availability of one delegate on a machine.

    >>> from tfcompress import edge
    >>> edge.delegates()["reference"].available
    True

    Attributes:
        name: The delegate's name, which `Runner` takes as `delegate=`.
        available: Whether a small file ran on it.
        reason: What the delegate is; or why it is not available, and what to install.
    """

    name: str
    available: bool
    reason: str


@dataclass(frozen=True)
class Placement:
    """The split of the ops of a file between a delegate and the built-in kernels.

    >>> from tfcompress import edge
    >>> print(edge.Placement("gpu", ops_total=4, ops_delegated=3, partitions=1, adapter="Adreno"))
    GPU (Adreno) 3/4 ops

    Attributes:
        delegate: The delegate that was asked for.
        ops_total: Number of ops in the file's first subgraph.
        ops_delegated: Number of ops that the delegate took; None where the runtime does not tell.
        partitions: Number of connected pieces of the graph that the delegate took. Between two of
            them, data goes back to the CPU's own kernels.
        left_behind: Op name to the number of ops that the delegate did not take; None where the
            runtime names the op but not how many.
        adapter: The GPU's name; None on the CPU.
        software: Whether that GPU is emulated on the CPU, so that its speed means nothing.
    """

    delegate: str
    ops_total: int
    ops_delegated: int | None
    partitions: int
    left_behind: dict[str, int | None] = field(default_factory=dict)
    adapter: str | None = None
    software: bool = False

    def __str__(self) -> str:
        # A placement that was saved may name a delegate that this version does not have.
        known = self.delegate in DELEGATES.names()
        label = DELEGATES.get(self.delegate).label if known else self.delegate
        if self.partitions == 0:
            takes_ops = not known or DELEGATES.get(self.delegate).takes_ops
            return "built-in kernels, no op delegated" if takes_ops else label
        if self.adapter:
            label += f" ({self.adapter}{', software' if self.software else ''})"
        if self.ops_delegated == self.ops_total:
            return label
        if self.ops_delegated is None:
            left = ", ".join(self.left_behind)
            return f"{label}, in part: {left} and maybe more on the CPU"
        return f"{label} {self.ops_delegated}/{self.ops_total} ops"


E = TypeVar("E", bound=Engine)


@dataclass(frozen=True)
class Delegate(Generic[E]):
    """A way to run a file: all that the rest of the package knows about it.

    Attributes:
        name: The name that users pass as `delegate=`.
        label: The name in reports: "XNNPACK".
        description: What it is, in a few words.
        load: Loads a file: path, threads on the CPU (None for the runtime's default), signature
            (None for the first), and whether to hold the runtime's console output back.
        available: Tells whether a small file runs on it here. It may also raise
            `DelegateUnavailable`, or kill its process.
        place: Tells where the ops of a loaded file run.
        compare: Compares the outputs in `read` with the CPU's on the same inputs, given a tolerance
            or None, and raises `DelegateMismatch`. None for an engine that needs no such check.
        takes_ops: Whether it takes ops over from the built-in kernels. False for a set of kernels.
    """

    name: str
    label: str
    description: str
    load: Callable[[Path, int | None, str | None, bool], E]
    available: Callable[[], Availability]
    place: Callable[[E], Placement]
    compare: Callable[[E, Mapping[str, Array], float | None], None] | None = None
    takes_ops: bool = True


# `engines/__init__.py` imports the modules that register the delegates.
DELEGATES: Registry[Delegate[Any]] = Registry("delegate")
