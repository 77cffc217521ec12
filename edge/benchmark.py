"""Measuring .tflite files: child processes, interleaved rounds, percentiles."""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from .errors import ModelFileError
from .placement import Placement
from .results import BenchmarkResult
from .runner import DELEGATES
from .system import tflite as modelfile
from .system.machine import Machine
from .targets.local import Child, ChildFailure

Pathlike = str | os.PathLike[str]
Progress = Callable[[int, int], None]


# A str is itself an iterable of str, which the first of the two takes care of.
@overload
def benchmark(  # type: ignore[overload-overlap]
    paths: Pathlike,
    delegate: str = ...,
    threads: int | None = ...,
    *,
    min_runs: int = ...,
    min_seconds: float = ...,
    warmup: int = ...,
    rounds: int = ...,
    timeout: float = ...,
    names: Sequence[str] | None = ...,
    inputs: Any = ...,
    seed: int = ...,
    emulated: bool | None = ...,
    progress: Progress | None = ...,
) -> BenchmarkResult: ...


@overload
def benchmark(
    paths: Iterable[Pathlike],
    delegate: str = ...,
    threads: int | None = ...,
    *,
    min_runs: int = ...,
    min_seconds: float = ...,
    warmup: int = ...,
    rounds: int = ...,
    timeout: float = ...,
    names: Sequence[str] | None = ...,
    inputs: Any = ...,
    seed: int = ...,
    emulated: bool | None = ...,
    progress: Progress | None = ...,
) -> list[BenchmarkResult]: ...


def benchmark(
    paths: Pathlike | Iterable[Pathlike],
    delegate: str = "xnnpack",
    threads: int | None = None,
    *,
    min_runs: int = 50,
    min_seconds: float = 1.0,
    warmup: int = 10,
    rounds: int = 10,
    timeout: float = 120.0,
    names: Sequence[str] | None = None,
    inputs: Any = None,
    seed: int = 0,
    emulated: bool | None = None,
    progress: Progress | None = None,
) -> BenchmarkResult | list[BenchmarkResult]:
    """Measures the latency, the memory and the size of .tflite files.

    Each file runs in a child process of its own, which stays alive while the files take turns, one
    round each: what disturbs the machine disturbs all of them, and the ratio between two files is
    taken within each round. Only the invocation is timed; the inputs are set before. On the GPU, it
    ends when the outputs have been read back, and the first run is compared with the CPU's.

    A file that is no model, that the delegate refuses, that crashes its process or hangs in it
    gives a result that says so. Nothing is raised for it.

    >>> from tfcompress import edge
    >>> from tfcompress.edge.system.tflite import PROBE
    >>> result = edge.benchmark(PROBE, min_runs=20, min_seconds=0.0)
    >>> result.status, result.bytes, result.runs, result.median_ms > 0
    ('ok', 516, 20, True)

    Args:
        paths: One file, or several.
        delegate: As for `Runner`.
        threads: As for `Runner`.
        min_runs: Runs measured of each file, at least.
        min_seconds: Seconds of measuring for each file, at least.
        warmup: Runs of each file that are not measured, besides the first.
        rounds: Turns that each file gets.
        timeout: Seconds in which a child must load its file, or finish a round; then it is killed.
        names: What a report calls the files; None takes the file names.
        inputs: Inputs of one run, for all files, as `Runner` takes them; None makes random ones,
            with 1 for every free dimension.
        seed: Seed of the random inputs.
        emulated: Whether the latencies are an emulator's; None says so for a software GPU.
        progress: Called with the rounds done and the rounds in all, over all files.

    Returns:
        One result for one path, a list for several, in the order given. Speed-ups are those over
        the first file.

    Raises:
        ValueError: An argument makes no sense.
    """
    single = isinstance(paths, str | os.PathLike)
    given: list[Pathlike] = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    files = [os.fspath(path) for path in given]
    labels = _labels(files, names)
    _validate(files, delegate, threads, min_runs, min_seconds, warmup, rounds, timeout)
    subjects = [_Subject(name, path) for name, path in zip(labels, files, strict=True)]
    with contextlib.ExitStack() as stack:
        stored = _store(inputs, stack)
        for subject in subjects:
            subject.start(
                stack,
                timeout,
                {
                    "delegate": delegate,
                    "threads": threads,
                    "seed": seed,
                    "warmup": warmup,
                    "inputs": stored,
                },
            )
        done = 0
        for turn in range(rounds):
            # Every other round backwards, so that no file always runs after the same one.
            for subject in subjects if turn % 2 == 0 else reversed(subjects):
                subject.round(-(-min_runs // rounds), min_seconds / rounds, timeout)
                done += 1
                if progress is not None:
                    progress(done, rounds * len(subjects))
        for subject in subjects:
            subject.finish(timeout)
    results = [subject.result(delegate, threads, subjects[0], emulated) for subject in subjects]
    return results[0] if single else results


class _Subject:
    """A file under measurement, and the child that runs it."""

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path
        self.failure: ChildFailure | None = None
        self.rounds: list[list[int]] = []
        self._child: Child | None = None
        self._loaded: dict[str, Any] = {}
        self._finished: dict[str, Any] = {}

    def _ask(self, command: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        if self._child is None or self.failure is not None:
            return {}
        try:
            return self._child.request(command, timeout, **arguments)
        except ChildFailure as failure:
            self.failure = failure
            return {}

    def start(self, stack: contextlib.ExitStack, timeout: float, options: dict[str, Any]) -> None:
        try:
            modelfile.check(self.path)
        except ModelFileError as error:
            self.failure = ChildFailure("refused", str(error))
            return
        self._child = stack.enter_context(Child())
        self._loaded = self._ask("load", timeout, path=self.path, **options)

    def round(self, runs: int, seconds: float, timeout: float) -> None:
        answer = self._ask("round", timeout, runs=runs, seconds=seconds)
        if answer:
            self.rounds.append(answer["ns"])

    def finish(self, timeout: float) -> None:
        measured = self.failure is None
        self._finished = self._ask("finish", timeout)
        if measured:
            # What was measured stands, even if finding out the placement went wrong.
            self.failure = None

    def result(
        self, delegate: str, threads: int | None, first: "_Subject", emulated: bool | None
    ) -> BenchmarkResult:
        size: tuple[int | None, int | None] = (None, None)
        with contextlib.suppress(OSError):
            size = modelfile.sizes(self.path)
        result = BenchmarkResult(
            name=self.name,
            path=self.path,
            delegate=delegate,
            threads=threads,
            bytes=size[0],
            gzip_bytes=size[1],
            machine=Machine(**self._loaded["machine"]) if self._loaded else None,
            load_ms=self._loaded.get("load_ms"),
            input_shapes=self._loaded.get("input_shapes", {}),
        )
        if self.failure is not None:
            return dataclasses.replace(
                result, status=self.failure.status, reason=self.failure.reason
            )
        found = self._finished
        placement = Placement(**found["placement"]) if found else None
        return dataclasses.replace(
            result,
            **_statistics(self.rounds),
            **(_ratios(first.rounds, self.rounds) if first.failure is None else {}),
            speedup_over=first.name if first.failure is None else "",
            placement=placement,
            peak_memory_bytes=self._loaded.get("peak"),
            base_memory_bytes=self._loaded.get("base"),
            memory_method=self._loaded.get("how", ""),
            emulated=bool(placement and placement.software) if emulated is None else emulated,
        )


def _statistics(rounds: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Percentiles (linear between two runs), mean and standard deviation of all runs, in ms."""
    times = np.concatenate([np.asarray(times, np.float64) for times in rounds]) / 1e6
    low, median, high, highest = np.percentile(times, [10, 50, 90, 99])
    return {
        "min_ms": float(times.min()),
        "p10_ms": float(low),
        "median_ms": float(median),
        "p90_ms": float(high),
        "p99_ms": float(highest),
        "mean_ms": float(times.mean()),
        "std_ms": float(times.std()),
        "runs": int(times.size),
    }


def _ratios(first: Sequence[Sequence[int]], own: Sequence[Sequence[int]]) -> dict[str, Any]:
    """How many times faster than the first file: one ratio a round, and their percentiles."""
    ratios = [
        float(np.median(reference) / np.median(times))
        for reference, times in zip(first, own, strict=True)
    ]
    low, median, high = np.percentile(ratios, [10, 50, 90])
    return {"speedup": float(median), "speedup_p10": float(low), "speedup_p90": float(high)}


def _labels(files: list[str], names: Sequence[str] | None) -> list[str]:
    if names is None:
        stems = [Path(file).stem for file in files]
        return stems if len(set(stems)) == len(stems) else files
    labels = [names] if isinstance(names, str) else list(names)
    if len(labels) != len(files):
        raise ValueError(f"names must have one name a file: {len(files)}. Received: {labels}")
    return labels


def _validate(
    files: list[str],
    delegate: str,
    threads: int | None,
    min_runs: int,
    min_seconds: float,
    warmup: int,
    rounds: int,
    timeout: float,
) -> None:
    if not files:
        raise ValueError("paths is empty: there is nothing to measure")
    if delegate not in DELEGATES:
        raise ValueError(f"delegate must be one of {DELEGATES}. Received: {delegate!r}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be None or at least 1. Received: {threads}")
    for name, value in (("min_runs", min_runs), ("rounds", rounds)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1. Received: {value}")
    for name, least in (("min_seconds", min_seconds), ("warmup", warmup)):
        if least < 0:
            raise ValueError(f"{name} must not be negative. Received: {least}")
    if timeout <= min_seconds / rounds:
        raise ValueError(
            f"timeout must be longer than a round, min_seconds / rounds = {min_seconds / rounds:g} "
            f"s. Received: {timeout:g}"
        )


def _store(inputs: Any, stack: contextlib.ExitStack) -> dict[str, Any] | None:
    """Puts the inputs into a file that the children read, their names beside it."""
    if inputs is None:
        return None
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    path = str(Path(folder) / "inputs.npz")
    names: list[str] | None = None
    if isinstance(inputs, Mapping):
        names = list(inputs)
        arrays = list(inputs.values())
    elif isinstance(inputs, list | tuple) and any(isinstance(i, np.ndarray) for i in inputs):
        arrays = list(inputs)
    else:
        arrays = [inputs]
    np.savez(path, *arrays)
    return {"path": path, "names": names}
