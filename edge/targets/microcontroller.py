"""A microcontroller as a target: TensorFlow Lite Micro, in a child process of this machine."""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..arguments import check_seconds, check_text
from ..engines.base import Placement
from ..errors import raised_by
from ..system import tflite
from ..system.child import Child, ChildFailure, Process, environment
from .answers import parse
from .base import TARGETS, Estimate

MICRO = "TensorFlow Lite Micro"


@dataclass(frozen=True)
class Run:
    """The answer to "estimate".

    Attributes:
        arena: Smallest number of bytes that the file runs in.
        ops: Name of each op, in the order of execution.
        parity: Largest difference from LiteRT's reference kernels.
        version: Version of tflite-micro.
    """

    arena: int
    ops: list[str]
    parity: str
    version: str


@dataclass(frozen=True)
class Microcontroller:
    """TensorFlow Lite Micro: whether it runs a file, in how much memory, and whether rightly.

    Its Python package runs on this machine, so that the outputs are those of its C++ kernels, while
    a latency would mean nothing: there is none. The arena is the smallest one, found by trying. A
    microcontroller has pointers of 32 bits and needs somewhat less; its optimized kernels, such as
    those of CMSIS-NN, may need more for scratch memory.

    The outputs on four random samples are compared with LiteRT's reference kernels. More than one
    step of an integer output, or 1e-5 of the largest value of a float one, is an error. Measured
    over the architectures of the tests, 115 files: 43 in float32 were equal bit for bit, 38 in int8
    and 34 in int16x8 were at most one step off, since kernels round here and there differently.

    >>> from tfcompress import edge
    >>> target = edge.Microcontroller()
    >>> target.name, isinstance(target, edge.Estimator)
    ('mcu', True)

    Args:
        name: The name in results. Defaults to `"mcu"`.

    Raises:
        TypeError: `name` is no text.
        ValueError: `name` is empty.
    """

    name: str = "mcu"

    def __post_init__(self) -> None:
        check_text("name", self.name)

    def estimate(self, path: Path, timeout: float = 120.0) -> Estimate:
        """Run a file in the smallest arena, in a child process, and compare its outputs.

        Args:
            path: The .tflite file.
            timeout: Seconds that the child process gets. Defaults to 120.

        Returns:
            The metrics `"arena bytes"` and `"parity"`, and the ops that the resolver must have;
            `converters.to_c_array` writes them as C++.

        Raises:
            ModelRefused: TensorFlow Lite Micro cannot run the file; the message names the op.
            DelegateMismatch: The outputs are not those of the reference kernels.
            ModelFileError: The file is missing, corrupt, or no .tflite file.
            ImportError: tflite-micro or a LiteRT runtime is not installed.
        """
        timeout = check_seconds("timeout", timeout)
        file = tflite.check(path)
        edge = Path(__file__).resolve().parents[1]
        try:
            with Child(
                Process([sys.executable, "-P", edge, "micro_worker"], environment())
            ) as child:
                run = parse(Run, "estimate", child.request("estimate", timeout, path=str(file)))
        except ChildFailure as failure:
            raise raised_by(failure, file) from failure
        ops = Counter(run.ops)
        return Estimate(
            Placement(MICRO, len(run.ops), len(run.ops), 1),
            f"{MICRO} {run.version}, with pointers of 64 bits",
            metrics={"arena bytes": run.arena, "parity": run.parity},
            ops=tuple(sorted(ops)),
        )


MICROCONTROLLER = Microcontroller()
TARGETS.add(MICROCONTROLLER)
