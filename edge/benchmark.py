"""Measure .tflite files: a process for each, interleaved rounds, percentiles."""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np

from .arguments import (
    LONGEST,
    check_each,
    check_function,
    check_integer,
    check_number,
    check_path,
    check_seconds,
    check_text,
    check_threads,
    refuse,
)
from .arrays import save_arrays
from .engines.base import DELEGATES, Placement
from .errors import ModelFileError
from .results import BenchmarkResult
from .system import tflite
from .system.child import ChildFailure
from .targets.answers import Loaded, Round, parse
from .targets.base import Session, Target, check_target
from .targets.local import LOCAL
from .timings import speedups, statistics

_MOST_RUNS = 10_000_000
_MOST_ROUNDS = 10_000

PathLike = str | os.PathLike[str]
Progress = Callable[[int, int], None]
T = TypeVar("T")


# A str is itself an iterable of str; the first overload takes it.
@overload
def benchmark(  # type: ignore[overload-overlap]
    paths: PathLike,
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
    signature: str | None = ...,
    seed: int = ...,
    target: Target = ...,
    progress: Progress | None = ...,
) -> BenchmarkResult: ...


@overload
def benchmark(
    paths: Iterable[PathLike],
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
    signature: str | None = ...,
    seed: int = ...,
    target: Target = ...,
    progress: Progress | None = ...,
) -> list[BenchmarkResult]: ...


def benchmark(
    paths: PathLike | Iterable[PathLike],
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
    signature: str | None = None,
    seed: int = 0,
    target: Target = LOCAL,
    progress: Progress | None = None,
) -> BenchmarkResult | list[BenchmarkResult]:
    """Measure the latency, the memory and the size of .tflite files.

    Each file runs in a process of its own on the target. All processes stay alive while the files
    take turns, one round each, so that a disturbance of the machine disturbs all files. The ratio
    between two files is taken within each round. Only the run is timed: the inputs are set before.
    On the GPU, a run ends when its outputs have been read back, and the first run is compared with
    the CPU's.

    A file that is no model, that the delegate refuses, that crashes its process or hangs in it has
    a result that says so. It raises nothing.

    >>> from tfcompress import edge
    >>> from tfcompress.edge.system.tflite import PROBE
    >>> result = edge.benchmark(PROBE, min_runs=20, min_seconds=0.0)
    >>> result.status, result.bytes, result.runs, result.median_ms > 0
    ('ok', 516, 20, True)

    Args:
        paths: One file, or several.
        delegate: `"xnnpack"`, `"reference"` or `"gpu"`. Defaults to `"xnnpack"`.
        threads: Number of CPU threads; None takes the runtime's default, which is one. Defaults to
            None.
        min_runs: Smallest number of runs measured of each file. Defaults to 50.
        min_seconds: Shortest time of measuring for each file, in seconds. Defaults to 1.
        warmup: Number of runs of each file, after the first, before the measured ones. Defaults to
            10.
        rounds: Number of turns that each file gets. Defaults to 10.
        timeout: Seconds in which a process must load its file, or finish a round; then it is
            killed. Defaults to 120.
        names: Names of the files in a report; None takes the file names. Defaults to None.
        inputs: Inputs of one run, for all files: one array, a sequence of arrays in the order of
            `Runner.inputs`, or a dict by input name. None makes random ones, with 1 for every free
            dimension. Defaults to None.
        signature: Name of the signature to run, such as "decode" of a language model, in all files.
            Where it is not the first of a file, the placement of its ops is not known. Defaults to
            None, the first.
        seed: Seed of the random inputs. Defaults to 0.
        target: The machine to run the files on. Defaults to `Local()`, this one.
        progress: Called with the number of rounds done and of rounds in all, over all files.
            Defaults to None.

    Returns:
        One result for one path, a list for several, in the order given. Speed-ups are over the
        first file.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of range.
    """
    single = isinstance(paths, str | os.PathLike)
    files = _files(paths)
    labels = _labels(files, names)
    DELEGATES.get(delegate)
    threads = check_threads(threads)
    min_runs = check_integer("min_runs", min_runs, 1, _MOST_RUNS)
    min_seconds = check_number("min_seconds", min_seconds, 0, LONGEST)
    warmup = check_integer("warmup", warmup, 0, _MOST_RUNS)
    rounds = check_integer("rounds", rounds, 1, _MOST_ROUNDS)
    timeout = check_seconds("timeout", timeout)
    if timeout <= min_seconds / rounds:
        raise ValueError(
            f"`timeout` must be longer than a round, min_seconds / rounds = "
            f"{min_seconds / rounds:g} s. Received: timeout={timeout:g}"
        )
    seed = check_integer("seed", seed, 0)
    if signature is not None:
        check_text("signature", signature)
    check_target(target)
    if progress is not None:
        check_function("progress", progress, "done", "rounds")
    subjects = [_Subject(name, path) for name, path in zip(labels, files, strict=True)]
    with contextlib.ExitStack() as stack:
        stored = _store(inputs, stack)
        options = {"delegate": delegate, "threads": threads, "seed": seed, "warmup": warmup}
        if signature is not None:
            options["signature"] = signature
        for subject in subjects:
            subject.start(stack, target, timeout, stored, options)
        done = 0
        for turn in range(rounds):
            # Every second round goes backwards, so that no file always follows the same one.
            for subject in subjects if turn % 2 == 0 else reversed(subjects):
                subject.round(-(-min_runs // rounds), min_seconds / rounds, timeout)
                done += 1
                if progress is not None:
                    progress(done, rounds * len(subjects))
        for subject in subjects:
            subject.finish(timeout)
    results = [subject.result(delegate, threads, subjects[0], target) for subject in subjects]
    return results[0] if single else results


@dataclasses.dataclass(frozen=True)
class _Inputs:
    """Inputs in a file, where the names of the arrays are lost, and the names."""

    path: Path
    names: list[str] | None


class _Subject:
    """A file under measurement, and the session that runs it."""

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path
        self.failure: ChildFailure | None = None
        self.rounds: list[list[int]] = []
        self._session: Session | None = None
        self._loaded: Loaded | None = None
        self._placement: Placement | None = None

    def _ask(self, kind: type[T], command: str, timeout: float, **arguments: Any) -> T | None:
        if self._session is None or self.failure is not None:
            return None
        try:
            answer = self._session.child.request(command, timeout, **arguments)
            return parse(kind, command, answer)
        except ChildFailure as failure:
            self.failure = failure
            return None

    def start(
        self,
        stack: contextlib.ExitStack,
        target: Target,
        timeout: float,
        inputs: _Inputs | None,
        options: dict[str, Any],
    ) -> None:
        try:
            files = [tflite.check(self.path), *([inputs.path] if inputs else [])]
        except ModelFileError as error:
            self.failure = ChildFailure("refused", str(error))
            return
        try:
            self._session = stack.enter_context(target.session(files))
        except (OSError, ChildFailure) as error:
            self.failure = ChildFailure(
                "error", f"target {target.name!r} opened no session: {error}"
            )
            return
        if len(self._session.paths) != len(files):
            self.failure = ChildFailure(
                "error",
                f"target {target.name!r} must give its session one path for each of {len(files)} "
                f"file(s). Received: {self._session.paths}",
            )
            return
        path, *stored = self._session.paths
        given = {"path": stored[0], "names": inputs.names} if inputs else None
        self._loaded = self._ask(Loaded, "load", timeout, path=path, inputs=given, **options)

    def round(self, runs: int, seconds: float, timeout: float) -> None:
        answer = self._ask(Round, "round", timeout, runs=runs, seconds=seconds)
        if answer is not None:
            self.rounds.append(answer.ns)

    def finish(self, timeout: float) -> None:
        measured = self.failure is None
        self._placement = self._ask(Placement, "finish", timeout)
        if measured:
            # The measured times count, even if the placement could not be found.
            self.failure = None

    def result(
        self, delegate: str, threads: int | None, first: "_Subject", target: Target
    ) -> BenchmarkResult:
        size: tuple[int | None, int | None] = (None, None)
        with contextlib.suppress(OSError):
            size = tflite.sizes(self.path)
        result = BenchmarkResult(
            name=self.name,
            path=self.path,
            delegate=delegate,
            threads=threads,
            bytes=size[0],
            gzip_bytes=size[1],
            target=target.name,
        )
        loaded, placement = self._loaded, self._placement
        if loaded is not None:
            result = dataclasses.replace(
                result,
                machine=loaded.machine,
                load_ms=loaded.load_ms,
                input_shapes=loaded.input_shapes,
                peak_memory_bytes=loaded.peak,
                base_memory_bytes=loaded.base,
                memory_method=loaded.how,
            )
        if self.failure is not None:
            return dataclasses.replace(
                result, status=self.failure.status, reason=self.failure.reason
            )
        return dataclasses.replace(
            result,
            **statistics(self.rounds),
            **(speedups(first.rounds, self.rounds) if first.failure is None else {}),
            speedup_over=first.name if first.failure is None else "",
            placement=placement,
            emulated=target.emulated or bool(placement and placement.software),
        )


def _files(paths: object) -> list[str]:
    wanted = "the path of a file, or a list of one or more"
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    if isinstance(paths, bytes | Mapping) or not isinstance(paths, Iterable):
        refuse("paths", wanted, paths, TypeError)
    files = [os.fspath(check_path("paths", path)) for path in paths]
    if not files:
        refuse("paths", wanted, files)
    return files


def _labels(files: list[str], names: Sequence[str] | None) -> list[str]:
    if names is None:
        stems = [Path(file).stem for file in files]
        return stems if len(set(stems)) == len(stems) else files
    labels = [names] if isinstance(names, str) else names
    check_each("names", labels, str, "a text")
    if len(labels) != len(files) or not all(labels):
        refuse("names", f"{len(files)} name(s), one for each file", names)
    return list(labels)


def _store(inputs: Any, stack: contextlib.ExitStack) -> _Inputs | None:
    """Write the inputs to a file that the processes read."""
    if inputs is None:
        return None
    names: list[str] | None = None
    if isinstance(inputs, Mapping):
        names = list(inputs)
        arrays = list(inputs.values())
    elif isinstance(inputs, list | tuple) and any(isinstance(i, np.ndarray) for i in inputs):
        arrays = list(inputs)
    else:
        arrays = [inputs]
    if not all(np.asarray(array).dtype.kind in "biufc" for array in arrays):
        refuse("inputs", "an array of numbers, or a list or dict of them", inputs, TypeError)
    path = Path(stack.enter_context(tempfile.TemporaryDirectory()), "inputs.npz")
    save_arrays(path, arrays)
    return _Inputs(path, names)
