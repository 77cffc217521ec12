"""Which delegates there are on this machine, and what really ran where."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .engines.cpu import CpuEngine
from .engines.gpu import GpuEngine
from .engines.runtime import runtime
from .errors import DelegateUnavailable, ModelFileError, ModelRefused
from .system import tflite as modelfile
from .targets.local import Child, ChildFailure


@dataclass(frozen=True)
class Delegate:
    """Whether one delegate can be used here.

    Attributes:
        name: What `Runner` takes as `delegate=`.
        available: Whether a small file ran on it.
        reason: What it is; or why it is not available, and what to install.
    """

    name: str
    available: bool
    reason: str


@dataclass(frozen=True)
class Placement:
    """Where the ops of a file run.

    Attributes:
        delegate: The delegate that was asked for.
        ops_total: Ops in the file's first subgraph.
        ops_delegated: Ops that the delegate took; None where the runtime does not tell.
        partitions: Connected pieces of the graph that it took: between two of them, data goes back
            to the CPU's own kernels.
        left_behind: Op name to the number of ops that it did not take; None where the runtime names
            the op but not how many.
        adapter: The GPU's name.
        software: Whether that GPU is a program on the CPU, whose speed means nothing.
    """

    delegate: str
    ops_total: int
    ops_delegated: int | None
    partitions: int
    left_behind: dict[str, int | None] = field(default_factory=dict)
    adapter: str | None = None
    software: bool = False

    def __str__(self) -> str:
        if self.delegate == "reference":
            return "reference kernels"
        if self.partitions == 0:
            return "built-in kernels, no op delegated"
        name = "XNNPACK" if self.delegate == "xnnpack" else "GPU"
        if self.adapter:
            name += f" ({self.adapter}{', software' if self.software else ''})"
        if self.ops_delegated == self.ops_total:
            return name
        if self.ops_delegated is None:
            left = ", ".join(self.left_behind)
            return f"{name}, in part: {left} and maybe more on the CPU"
        return f"{name} {self.ops_delegated}/{self.ops_total} ops"


def delegates(timeout: float = 60.0) -> dict[str, Delegate]:
    """Finds out which delegates can be used on this machine, by running a small file on each.

    Each is tried in a child process of its own: on some machines the mere attempt kills the process
    that makes it.

    >>> from tfcompress import edge
    >>> edge.delegates()["xnnpack"].available
    True

    Args:
        timeout: Seconds that each delegate gets to show itself.

    Returns:
        Delegate by name: `"xnnpack"`, `"reference"` and `"gpu"`.
    """
    found: dict[str, Delegate] = {}
    for name in ("xnnpack", "reference", "gpu"):
        try:
            with Child() as child:
                answer = child.request("probe", timeout, delegate=name)
        except ChildFailure as failure:
            said = failure.reason if failure.status == "refused" else str(failure)
            found[name] = Delegate(name, False, said)
        else:
            found[name] = Delegate(name, answer["available"], answer["reason"])
    return found


def placement(
    path: str | os.PathLike[str],
    delegate: str = "xnnpack",
    threads: int | None = None,
    timeout: float = 60.0,
) -> Placement:
    """Finds out which ops of a file the delegate takes, and which stay with the plain kernels.

    LiteRT's own `is_fully_accelerated()` is not used: it counts XNNPACK as acceleration.

    >>> from tfcompress import edge
    >>> from tfcompress.edge.system.tflite import PROBE
    >>> print(edge.placement(PROBE))
    XNNPACK

    Args:
        path: The .tflite file.
        delegate: As for `Runner`.
        threads: As for `Runner`.
        timeout: Seconds that the child process gets.

    Returns:
        The placement. On a GPU that does not take every op, LiteRT names what it refuses, but not
        what it leaves behind besides, so `ops_delegated` is None.

    Raises:
        ModelFileError: The file is missing, corrupt, or no .tflite file.
        ModelRefused: The delegate cannot run the file, or the process died of it.
        DelegateUnavailable: This machine has no such delegate.
    """
    modelfile.check(path)
    try:
        with Child() as child:
            answer = child.request(
                "placement", timeout, path=os.fspath(path), delegate=delegate, threads=threads
            )
    except ChildFailure as failure:
        for kind in (ModelFileError, DelegateUnavailable):
            if failure.kind == kind.__name__:
                raise kind(failure.reason) from None
        raise ModelRefused(failure.reason) from None
    return Placement(**answer["placement"])


def place(path: Path, delegate: str, threads: int | None) -> Placement:
    """`placement`, in this process."""
    if delegate == "gpu":
        return place_gpu(GpuEngine(path, threads))
    plain = CpuEngine(path, "none", threads).ops()
    if delegate == "reference":
        return Placement(delegate, len(plain), 0, 0, dict(_names(plain, range(len(plain)))))
    ops = CpuEngine(path, delegate, threads).ops()
    pieces = [op for op in ops if op["op_name"] == "DELEGATE"]
    taken = set[int]()
    for piece in pieces:
        taken |= _inside(piece, plain)
    left = [index for index in range(len(plain)) if index not in taken]
    return Placement(delegate, len(plain), len(taken), len(pieces), dict(_names(plain, left)))


def place_gpu(engine: GpuEngine) -> Placement:
    """Where the ops of a file compiled for the GPU run, as far as the runtime's log tells."""
    total = len(CpuEngine(engine.path, "none").ops())
    log = engine.log
    if engine.complete:
        # Compiled for the GPU alone: an op that it lacks would have been an error.
        return Placement("gpu", total, total, max(1, log.kernels), {}, log.adapter, log.software)
    left: dict[str, int | None] = dict.fromkeys(sorted(log.unsupported))
    return Placement("gpu", total, None, log.kernels, left, log.adapter, log.software)


def _names(ops: list[dict[str, Any]], indices: Any) -> Counter[str]:
    return Counter(ops[index]["op_name"] for index in indices)


def _inside(piece: dict[str, Any], plain: list[dict[str, Any]]) -> set[int]:
    """Nodes of the file that a DELEGATE node stands for: from its outputs back to its inputs."""
    producer = {int(out): index for index, op in enumerate(plain) for out in op["outputs"]}
    border = {int(tensor) for tensor in piece["inputs"]}
    inside: set[int] = set()
    pending = [int(tensor) for tensor in piece["outputs"]]
    while pending:
        index = producer.get(pending.pop())
        if index is None or index in inside:
            continue
        inside.add(index)
        pending += [int(t) for t in plain[index]["inputs"] if int(t) not in border]
    return inside


def probe(delegate: str) -> tuple[bool, str]:
    """Runs the probe file on one delegate, in this process: whether it ran, and what to say."""
    if delegate == "gpu":
        engine = GpuEngine(modelfile.PROBE)
        name = engine.log.adapter or "unnamed"
        if engine.log.software:
            return True, (
                f"GPU delegate on {name}: a software GPU, fit for tests of correctness; "
                "its speed means nothing"
            )
        return True, f"GPU delegate on {name}"
    found = runtime()
    placed = place(modelfile.PROBE, delegate, None)
    if delegate == "xnnpack" and not placed.partitions:
        return False, f"{found.name} {found.version} applies no XNNPACK delegate on this machine"
    what = "XNNPACK" if delegate == "xnnpack" else "reference kernels"
    return True, f"{what} of {found.name} {found.version}"
