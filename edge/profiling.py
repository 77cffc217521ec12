"""`profile`: the time that each op of a .tflite file takes."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .arguments import check_integer, check_seconds
from .errors import raised_by
from .shown import Shown
from .system import tflite
from .system.child import ChildFailure
from .targets.answers import OpTimes, parse
from .targets.base import Target, check_target
from .targets.local import LOCAL

_MOST = 1_000_000


@dataclass(frozen=True)
class OpTime:
    """An op that ran, and its time.

    >>> from tfcompress import edge
    >>> edge.OpTime("SOFTMAX", "built-in", 0.5).us
    0.5

    Attributes:
        name: Its name: XNNPACK's own for its kernels, TFLite's for built-in ones.
        kernels: `"XNNPACK"` or `"built-in"`.
        us: Mean microseconds of one run.
    """

    name: str
    kernels: str
    us: float


@dataclass(frozen=True)
class Profile(Shown):
    """The ops of a file in the order of execution, with their times. Printing it gives a table.

    >>> from pathlib import Path
    >>> from tfcompress import edge
    >>> ops = (edge.OpTime("Add (ND)", "XNNPACK", 3.0), edge.OpTime("SOFTMAX", "built-in", 1.0))
    >>> print(edge.Profile(Path("m.tflite"), ops, runs=50))
    m.tflite: 4.0 us in 2 ops, mean of 50 runs
          us   share  kernels   op
         3.0   75.0%  XNNPACK   Add (ND)
         1.0   25.0%  built-in  SOFTMAX

    Attributes:
        path: The file.
        ops: The ops.
        runs: Number of runs.
        target: Name of the target that the file ran on. Defaults to "local".
        emulated: Whether the times mean nothing, because the target is emulated. Defaults to False.
    """

    path: Path
    ops: tuple[OpTime, ...]
    runs: int
    target: str = "local"
    emulated: bool = False

    @property
    def total_us(self) -> float:
        """Return the mean microseconds of all ops together."""
        return sum(op.us for op in self.ops)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for `json.dumps`."""
        return {**dataclasses.asdict(self), "path": str(self.path)}

    def __str__(self) -> str:
        where = "" if self.target == "local" else f" on {self.target}"
        mark = " (emulated: these times mean nothing)" if self.emulated else ""
        total = self.total_us
        rows = [
            f"{op.us:8.1f}  {op.us / total if total else 0.0:6.1%}  {op.kernels:8}  {op.name}"
            for op in self.ops
        ]
        head = f"{self.path.name}: {total:.1f} us in {len(rows)} ops, mean of {self.runs} runs"
        return "\n".join([head + where + mark, "      us   share  kernels   op", *rows])


def profile(
    path: str | os.PathLike[str],
    *,
    runs: int = 100,
    warmup: int = 10,
    timeout: float = 120.0,
    target: Target = LOCAL,
) -> Profile:
    """Measure the time that each op of a .tflite file takes, by LiteRT's own profiler.

    The file runs on the CPU with one thread, with XNNPACK, on random inputs with 1 for every free
    size, in a child process. The profiler counts whole microseconds, and leaves out what lies
    between the ops: for the time of a whole run, use `benchmark`.

    >>> from tfcompress import edge
    >>> from tfcompress.edge.system.tflite import PROBE
    >>> [op.name for op in edge.profile(PROBE, runs=5).ops]
    ['Add (ND)']

    Args:
        path: The .tflite file. Its first signature is run.
        runs: Number of runs that are measured. Defaults to 100.
        warmup: Number of runs before them. Defaults to 10.
        timeout: Seconds that the child process gets. Defaults to 120.
        target: The machine to run the file on. Defaults to `Local()`, this one.

    Returns:
        The ops and their times.

    Raises:
        ModelFileError: The file is missing, corrupt, or no .tflite file.
        ModelRefused: The runtime cannot run the file, or died of it.
        DelegateUnavailable: The runtime has no profiler: tflite-runtime has none.
        TypeError: An argument has the wrong type.
        ValueError: A number is out of range.
        OSError: The target cannot be reached.
    """
    runs = check_integer("runs", runs, 1, _MOST)
    warmup = check_integer("warmup", warmup, 0, _MOST)
    timeout = check_seconds("timeout", timeout)
    check_target(target)
    file = tflite.check(path)
    try:
        with target.session([file]) as session:
            [there] = session.paths
            answer = session.child.request("profile", timeout, path=there, runs=runs, warmup=warmup)
            found = parse(OpTimes, "profile", answer)
    except ChildFailure as failure:
        raise raised_by(failure, file) from None
    ops = map(OpTime, found.names, found.kernels, found.us)
    return Profile(file, tuple(ops), runs, target.name, target.emulated)
