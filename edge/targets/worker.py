"""The process on a target: loads and measures one file, where it may crash.

Reads requests from stdin and writes answers to stdout, in the protocol of `system.child`. Commands:
`probe`, `placement`, `outputs`, `logits`, `load`, `round`, `finish`, `profile`, `open`, `run`,
`run_sent`, `tensors`, `modules`.
"""

import dataclasses
import sys
import time
from typing import Any

import numpy as np

from ..arrays import from_text, load_arrays, save_arrays, to_text
from ..engines.base import DELEGATES
from ..engines.cpu import CpuEngine
from ..engines.profiler import Profiler
from ..errors import DelegateMismatch, DelegateUnavailable, ModelFileError, ModelRefused
from ..generation.generator import Generator
from ..inputs import as_real, random_inputs
from ..runner import Runner
from ..system import tflite
from ..system.machine import machine, memory, reset_peak_memory
from ..system.runtime import runtime
from ..system.serve import serve
from ..tensors import Array

# Errors that the file, the delegate, the inputs or the installation are to blame for.
REFUSALS = (
    ModelFileError, ModelRefused, DelegateUnavailable, DelegateMismatch, ImportError, ValueError,
    TypeError,
)  # fmt: skip


def main() -> None:
    """Answer requests until stdin ends."""
    commands = Commands()

    def answer(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = getattr(commands, command)(**arguments)
        return result

    serve(answer, REFUSALS)


class Commands:
    """What the parent can ask for; the loaded file is the state between two requests."""

    def __init__(self) -> None:
        self._runner: Runner | None = None

    def modules(self) -> dict[str, Any]:
        """Return the names of all imported modules."""
        return {"modules": sorted(sys.modules)}

    def probe(self, delegate: str) -> dict[str, Any]:
        """Tell whether a delegate can be used here."""
        return dataclasses.asdict(DELEGATES.get(delegate).available())

    def placement(self, path: str, delegate: str, threads: int | None) -> dict[str, Any]:
        """Tell where the ops of a file run."""
        chosen = DELEGATES.get(delegate)
        engine = chosen.load(tflite.check(path), threads, None, True)
        return dataclasses.asdict(chosen.place(engine))

    def outputs(self, path: str, inputs: str, names: list[str], out: str) -> dict[str, Any]:
        """Run a file on arrays that an .npz file holds, and write the outputs to another one."""
        runner = Runner(path)
        arrays = dict(zip(names, load_arrays(inputs), strict=True))
        found = runner.named(as_real(arrays, runner.inputs))
        save_arrays(out, list(found.values()))
        return {"names": list(found)}

    def logits(self, path: str, tokens: str, out: str) -> dict[str, Any]:
        """Run a language model on rows of tokens: one by one, and read together.

        Logits after each token, and those after the last one, go to `out`.
        """
        generator = Generator(path)
        [rows] = load_arrays(tokens)
        each = np.stack([generator.logits(row) for row in rows])
        last = np.stack([generator.logits(row, last=True) for row in rows])
        save_arrays(out, [each, last])
        return {}

    def load(
        self,
        path: str,
        delegate: str,
        threads: int | None,
        seed: int,
        warmup: int,
        inputs: dict[str, Any] | None = None,
        signature: str | None = None,
    ) -> dict[str, Any]:
        """Load a file, set its inputs, and warm it up.

        The first run is compared with the CPU's, if the delegate needs that.
        """
        runtime()
        fresh = reset_peak_memory()
        base, _, _ = memory()
        runner = Runner(path, delegate, threads, signature=signature)
        arrays = random_inputs(runner.inputs, seed) if inputs is None else _given(runner, **inputs)
        runner.named(arrays, raw=True)
        for _ in range(warmup):
            runner.engine.invoke()
        self._runner = runner
        # All is allocated by now, and the measured times do not take memory yet.
        _, peak, how = memory()
        if how == "VmHWM" and not fresh:
            how += ", since the process began"
        chosen = DELEGATES.get(delegate)
        if chosen.compare is not None:
            how += f", with the CPU's copy of the model that the {chosen.label} was compared with"
        return {
            "load_ms": runner.engine.load_ns / 1e6,
            "input_shapes": {name: list(array.shape) for name, array in arrays.items()},
            "machine": dataclasses.asdict(machine()),
            "peak": peak,
            "base": base,
            "how": how,
        }

    def round(self, runs: int, seconds: float) -> dict[str, Any]:
        """Measure at least so many runs for at least so long; return nanoseconds of each."""
        invoke = self._loaded().engine.invoke
        clock = time.perf_counter_ns
        times: list[int] = []
        end = clock() + round(seconds * 1e9)
        while len(times) < runs or clock() < end:
            start = clock()
            invoke()
            times.append(clock() - start)
        return {"ns": times}

    def finish(self) -> dict[str, Any]:
        """Tell where the ops of the loaded file ran."""
        runner = self._loaded()
        return dataclasses.asdict(DELEGATES.get(runner.delegate).place(runner.engine))

    def profile(self, path: str, runs: int, warmup: int) -> dict[str, Any]:
        """Tell the ops that a file runs, and the mean microseconds of each."""
        file = tflite.check(path)
        inputs = random_inputs(CpuEngine(file).inputs, 0)
        found = list(Profiler(file, inputs).runs(runs, warmup))
        if not found[0] or any(len(ops) != len(found[0]) for ops in found):
            raise ModelRefused(f"{path}: the profiler does not tell the same ops in each run")
        return {
            "names": [name for name, _, _ in found[0]],
            "kernels": [kernels for _, kernels, _ in found[0]],
            "us": np.mean([[us for _, _, us in ops] for ops in found], axis=0).tolist(),
        }

    def open(
        self,
        path: str,
        delegate: str,
        threads: int | None,
        signature: str | None,
        tolerance: float | None,
    ) -> dict[str, Any]:
        """Load a file, to be run on inputs of the caller's."""
        runner = Runner(path, delegate, threads, signature=signature, tolerance=tolerance)
        self._runner = runner
        return {
            "load_ns": runner.engine.load_ns,
            "inputs": [info.to_dict() for info in runner.inputs],
            "outputs": [info.to_dict() for info in runner.outputs],
        }

    def run(self, inputs: str, names: list[str], outputs: str) -> dict[str, Any]:
        """Run the opened file once on arrays of its own types, from file to file."""
        arrays = dict(zip(names, load_arrays(inputs), strict=True))
        save_arrays(outputs, list(self._loaded().named(arrays, raw=True).values()))
        return {}

    def run_sent(self, inputs: str, names: list[str]) -> dict[str, Any]:
        """Run the opened file once on arrays of its own types, which the request holds."""
        arrays = dict(zip(names, from_text(inputs), strict=True))
        return {"outputs": to_text(list(self._loaded().named(arrays, raw=True).values()))}

    def tensors(
        self, path: str, inputs: str, names: list[str], places: list[int], out: str
    ) -> dict[str, Any]:
        """Run a file once, without a delegate, and write tensors between its ops to a file.

        The inputs are of the file's own types. A delegate keeps what is inside it to itself.
        """
        engine = CpuEngine(tflite.check(path), delegate="none", keep=True)
        arrays = dict(zip(names, load_arrays(inputs), strict=True))
        engine.prepare({name: array.shape for name, array in arrays.items()})
        engine.write(arrays)
        engine.invoke()
        save_arrays(out, [engine.tensor(place) for place in places])
        return {}

    def _loaded(self) -> Runner:
        if self._runner is None:
            raise RuntimeError("no file is loaded")
        return self._runner


def _given(runner: Runner, path: str, names: list[str] | None) -> dict[str, Array]:
    arrays = load_arrays(path)
    given: Any = arrays if names is None else dict(zip(names, arrays, strict=True))
    encoded = runner.encode(given)
    parts = runner.split(encoded)
    if len(parts) > 1:
        raise ValueError(
            f"inputs= holds {len(parts)} batches of {runner.path}, and one run takes one: "
            f"{ {name: array.shape for name, array in parts[0].items()} }"
        )
    return encoded
