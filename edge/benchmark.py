"""Measure .tflite files: a process for each, interleaved rounds, percentiles."""

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from .arguments import (
    LONGEST,
    check_choice,
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
from .engines.base import DELEGATES
from .results import BenchmarkResult
from .subject import Subject, estimated, measured_elsewhere, store
from .targets.base import AnyTarget, Estimator, Measurer, Settings, check_any_target
from .targets.local import LOCAL

_MOST_RUNS = 10_000_000
_MOST_ROUNDS = 10_000

PathLike = str | os.PathLike[str]
Progress = Callable[[int, int], None]


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
    target: AnyTarget = ...,
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
    target: AnyTarget = ...,
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
    target: AnyTarget = LOCAL,
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
        target: The machine to run the files on; or an `Estimator`, which takes of the other
            arguments `names`, `timeout` and `progress` alone; or a `Measurer`, which takes no
            `inputs`, `rounds` or `seed`. Defaults to `Local()`, this machine.
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
    check_any_target(target)
    if isinstance(target, Measurer):
        check_choice("delegate", delegate, target.delegates)
    else:
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
    if progress is not None:
        check_function("progress", progress, "done", "rounds")
    if isinstance(target, Estimator | Measurer):
        results = []
        settings = Settings(delegate, threads, min_runs, min_seconds, warmup, timeout)
        for name, path in zip(labels, files, strict=True):
            results.append(
                measured_elsewhere(name, path, target, settings, signature)
                if isinstance(target, Measurer)
                else estimated(name, path, target, timeout, signature)
            )
            if progress is not None:
                progress(len(results), len(files))
        return results[0] if single else results
    subjects = [Subject(name, path) for name, path in zip(labels, files, strict=True)]
    with contextlib.ExitStack() as stack:
        stored = store(inputs, stack)
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
