"""What a child process does: one file, loaded and measured where it may die.

Commands, one JSON object a line: `probe`, `placement`, `load`, `round`, `finish`, `modules`.
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..engines.gpu import GpuEngine
from ..engines.runtime import runtime
from ..placement import place, place_gpu, probe
from ..runner import Runner
from ..system import tflite as modelfile
from ..system.machine import machine, memory, reset_peak_memory
from ..tensors import Array, TensorInfo


def main() -> None:
    """Answers requests until stdin ends."""
    # The runtime logs to file descriptors 1 and 2: the answers get a descriptor of their own.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        session = Session()
        for line in sys.stdin:
            request = json.loads(line)
            command: Callable[..., dict[str, Any]] = getattr(session, request.pop("command"))
            try:
                answer = {"ok": True, **command(**request)}
            except Exception as error:
                # The parent turns every error into a result with its reason.
                answer = {"ok": False, "kind": type(error).__name__, "message": str(error)}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


class Session:
    """The state of one child: the file it has loaded."""

    def __init__(self) -> None:
        self._runner: Runner | None = None

    def modules(self) -> dict[str, Any]:
        """Names of all imported modules."""
        return {"modules": sorted(sys.modules)}

    def probe(self, delegate: str) -> dict[str, Any]:
        """Whether a delegate can be used here."""
        available, reason = probe(delegate)
        return {"available": available, "reason": reason}

    def placement(self, path: str, delegate: str, threads: int | None) -> dict[str, Any]:
        """Where the ops of a file run."""
        placed = place(modelfile.check(path), delegate, threads)
        return {"placement": dataclasses.asdict(placed)}

    def load(
        self,
        path: str,
        delegate: str,
        threads: int | None,
        seed: int,
        warmup: int,
        inputs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Loads a file, sets its inputs, and warms it up.

        On the GPU, the first run is compared with the CPU.
        """
        runtime()
        fresh = reset_peak_memory()
        base, _, _ = memory()
        runner = Runner(path, delegate, threads)
        arrays = random_inputs(runner, seed) if inputs is None else _given(runner, **inputs)
        runner.named(arrays, raw=True)
        for _ in range(warmup):
            runner.engine.invoke()
        self._runner = runner
        # Now that all is allocated, and before the measured times take memory themselves.
        _, peak, how = memory()
        if how == "VmHWM" and not fresh:
            how += ", since the process began"
        if isinstance(runner.engine, GpuEngine):
            how += ", with the CPU's copy of the model that the GPU was compared with"
        return {
            "load_ms": runner.engine.load_ns / 1e6,
            "input_shapes": {name: list(array.shape) for name, array in arrays.items()},
            "machine": dataclasses.asdict(machine()),
            "peak": peak,
            "base": base,
            "how": how,
        }

    def round(self, runs: int, seconds: float) -> dict[str, Any]:
        """Measures runs, at least so many and for at least so long; nanoseconds each."""
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
        """Where the ops of the loaded file ran."""
        runner = self._loaded()
        engine = runner.engine
        placed = (
            place_gpu(engine)
            if isinstance(engine, GpuEngine)
            else place(runner.path, runner.delegate, runner.threads)
        )
        return {"placement": dataclasses.asdict(placed)}

    def _loaded(self) -> Runner:
        if self._runner is None:
            raise RuntimeError("no file is loaded")
        return self._runner


def random_inputs(runner: Runner, seed: int) -> dict[str, Array]:
    """Inputs of the file's own types; sizes that are free become 1.

    Real numbers are standard normal; quantized integers are uniform over their type; other integers
    are 0 or 1, which are valid indices almost everywhere.
    """
    rng = np.random.default_rng(seed)
    return {info.name: _random(rng, info) for info in runner.inputs}


def _random(rng: np.random.Generator, info: TensorInfo) -> Array:
    shape = tuple(1 if size is None else size for size in info.shape)
    if info.quantized:
        limits = np.iinfo(info.dtype)
        return rng.integers(limits.min, limits.max, shape, dtype=info.dtype, endpoint=True)
    if info.dtype.kind == "f":
        return rng.standard_normal(shape).astype(info.dtype)
    if info.dtype.kind in "iub":
        return rng.integers(0, 2, shape).astype(info.dtype)
    raise TypeError(f"Input {info}: give inputs=, there are no random values of this type")


def _given(runner: Runner, path: str, names: list[str] | None) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as stored:
        # np.savez calls what it is given by position arr_0, arr_1, ...
        arrays = [stored[f"arr_{index}"] for index in range(len(stored.files))]
    given: Any = arrays if names is None else dict(zip(names, arrays, strict=True))
    encoded = runner.encode(given)
    parts = runner.split(encoded)
    if len(parts) > 1:
        raise ValueError(
            f"inputs= holds {len(parts)} batches of {runner.path}, and one run takes one: "
            f"{ {name: array.shape for name, array in parts[0].items()} }"
        )
    return encoded
