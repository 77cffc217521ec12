"""The process that runs a file on TensorFlow Lite Micro, which aborts on some files.

Answers the command `estimate`, in the protocol of `system.child`.
"""

import contextlib
import importlib
import importlib.metadata
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..engines.cpu import CpuEngine
from ..errors import DelegateMismatch, ModelFileError, ModelRefused
from ..inputs import random_inputs
from ..system import tflite
from ..system.console import attempt
from ..system.serve import serve
from ..tensors import Array, TensorInfo

REFUSALS = (DelegateMismatch, ImportError, ModelFileError, ModelRefused, TypeError, ValueError)

MICRO = "TensorFlow Lite Micro"
INSTALL = (
    f"No {MICRO} is installed. It is in tfcompress[mcu], for Linux on x86-64 and Python 3.11 to "
    "3.13:\n    pip install 'tfcompress[mcu]'"
)
# The largest arena that is tried: more than any microcontroller has.
MOST = 2**28
STEP = 16  # bytes; TensorFlow Lite Micro aligns its tensors to them
SAMPLES = 4

# The most that is seen in 115 files of this project's tests is one step, and no error in float32.
STEPS = 1.0
SHARE = 1e-5


def main() -> None:
    """Answer requests until stdin ends."""
    serve(lambda command, arguments: {"estimate": estimate}[command](**arguments), REFUSALS)


def estimate(path: str) -> dict[str, Any]:
    """Find the smallest arena, and compare the outputs in it with the reference kernels'."""
    try:
        runtime = importlib.import_module("tflite_micro.python.tflite_micro.runtime")
    except ModuleNotFoundError as error:
        raise ImportError(f"{INSTALL}\n(There is no module {error.name!r}.)") from error
    file = tflite.check(path)
    micro = _Micro(runtime, file)
    arena = micro.smallest_arena()
    reference = CpuEngine(file, delegate="reference")
    return {
        "arena": arena,
        "ops": [op["op_name"] for op in reference.ops()],
        "parity": _compare(file, reference, micro.load(arena)),
        "version": importlib.metadata.version("tflite-micro"),
    }


class _Micro:
    """A file on TensorFlow Lite Micro, in arenas of any size."""

    def __init__(self, runtime: Any, file: Path) -> None:
        self._runtime = runtime
        self._file = file
        self._content = file.read_bytes()

    def load(self, arena: int) -> Any:
        """Load the file in an arena of so many bytes.

        Raises:
            ModelRefused: The arena is too small, or an op or a type is not supported.
        """
        interpreter, error, said = attempt(
            lambda: self._runtime.Interpreter.from_bytes(self._content, arena_size=arena)
        )
        if error is not None:
            raise ModelRefused(f"{self._file}: {MICRO} cannot run {reason(said, str(error))}")
        return interpreter

    def smallest_arena(self) -> int:
        """Return the smallest multiple of 16 bytes that the file runs in.

        Raises:
            ModelRefused: It does not run in the largest arena.
        """
        self.load(MOST)
        least, most = 0, 2**12
        while not self._fits(most):
            least, most = most, min(most * 4, MOST)
        while most - least > STEP:
            middle = (least + most) // 2 // STEP * STEP
            least, most = (least, middle) if self._fits(middle) else (middle, most)
        return most

    def _fits(self, arena: int) -> bool:
        """Try an arena in a copy of this process: some that are too small end it by SIGSEGV."""
        copy = os.fork()
        if copy == 0:
            code = 1
            with contextlib.suppress(ModelRefused):
                self.load(arena)
                code = 0
            os._exit(code)
        return os.waitpid(copy, 0)[1] == 0


def reason(said: str, error: str) -> str:
    """Return the op that failed, and why, from what the runtime wrote to its console.

    >>> from tfcompress.edge.targets.micro_worker import reason
    >>> said = ["Bad filter type.", "Node CONV_2D (number 3) failed to prepare with status 1"]
    >>> reason(chr(10).join(said), "failed to allocate tensors")
    'CONV_2D (op 3): Bad filter type.'
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    for index, line in enumerate(lines):
        if found := re.search(r"Node (\S+) \(number (\d+)f?\) failed to (?:prepare|invoke)", line):
            why = lines[index - 1] if index else error
            return f"{found[1]} (op {found[2]}): {why}"
        if found := re.search(r"find op for builtin opcode '(\w+)'", line):
            return f"{found[1]}: it has no such op"
    return f"this file: {lines[-1] if lines else error}"


def _compare(file: Path, reference: CpuEngine, micro: Any) -> str:
    """Return the largest difference of any output, in steps or as a share of the largest value."""
    interpreter = reference.interpreter
    places = {
        int(detail["index"]): place
        for details in (interpreter.get_input_details(), interpreter.get_output_details())
        for place, detail in enumerate(details)
    }
    worst: dict[str, float] = {}
    for seed in range(SAMPLES):
        arrays = random_inputs(reference.inputs, seed)
        reference.write(arrays)
        reference.invoke()
        for info in reference.inputs:
            micro.set_input(arrays[info.name], places[info.index])
        _, error, said = attempt(micro.invoke)
        if error is not None:
            raise ModelRefused(f"{file}: {MICRO} cannot run {reason(said, str(error))}")
        for name, expected in reference.read().items():
            [info] = [info for info in reference.outputs if info.name == name]
            unit, step = _unit(reference, info, expected)
            received = np.asarray(micro.get_output(places[info.index]), np.float64)
            off = float(np.max(np.abs(received - expected), initial=0.0)) / step
            _check(file, name, off, unit)
            worst[unit] = max(worst.get(unit, 0.0), off)
    return ", ".join(
        f"{off:.3g} LSB" if unit == "steps" else f"{off:.1e}" for unit, off in worst.items()
    )


def _unit(reference: CpuEngine, info: TensorInfo, values: Array) -> tuple[str, float]:
    """Return in what an output's difference is counted, and how much one of it is."""
    if info.dtype.kind in "iub":
        return "steps", 1.0
    step = reference.output_step(info)
    if step is not None:
        return "steps", step
    return "share", float(np.max(np.abs(values[np.isfinite(values)]), initial=0.0)) or 1.0


def _check(file: Path, name: str, off: float, unit: str) -> None:
    limit = STEPS if unit == "steps" else SHARE
    # A float output is a multiple of the step only up to rounding.
    if off <= limit + 1e-3 * (unit == "steps"):
        return
    numbers: Mapping[str, float | str] = {
        "output": name, "error": off, "tolerance": limit, "unit": unit
    }  # fmt: skip
    raise DelegateMismatch(
        f"{file} on {MICRO} differs from LiteRT's reference kernels on the same inputs: output "
        f"{name!r} is off by {off:.4g} {'steps' if unit == 'steps' else 'of its largest value'}, "
        f"where {limit:g} is tolerated. Constants outside of the file's tables are one cause: "
        "write the file anew with converters.sparsify or converters.quantize",
        numbers,
    )
