"""A file under measurement, and the session or the estimator that measures it."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .arguments import refuse
from .arrays import save_arrays
from .engines.base import Placement
from .errors import DelegateMismatch, ModelFileError, ModelRefused
from .results import BenchmarkResult
from .system import tflite
from .system.child import ChildFailure
from .targets.answers import Loaded, Round, parse
from .targets.base import Estimator, Measurer, Session, Settings, Target
from .timings import speedups, statistics

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Inputs in a file, where the names of the arrays are lost, and the names."""

    path: Path
    names: list[str] | None


class Subject:
    """A file under measurement, and the session that runs it.

    Args:
        name: The file's name in a report.
        path: The file.

    Attributes:
        failure: Why the file could not be measured; None if it could, until now.
        rounds: Nanoseconds of each run, for each round.
    """

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
        inputs: Inputs | None,
        options: dict[str, Any],
    ) -> None:
        """Open a session and load the file."""
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
        """Measure one round."""
        answer = self._ask(Round, "round", timeout, runs=runs, seconds=seconds)
        if answer is not None:
            self.rounds.append(answer.ns)

    def finish(self, timeout: float) -> None:
        """Find out where the ops ran."""
        measured = self.failure is None
        self._placement = self._ask(Placement, "finish", timeout)
        if measured:
            # The measured times count, even if the placement could not be found.
            self.failure = None

    def result(
        self, delegate: str, threads: int | None, first: "Subject", target: Target
    ) -> BenchmarkResult:
        """Return the result; speed-ups are over the first file."""
        result = _with_sizes(
            BenchmarkResult(self.name, self.path, delegate, threads=threads, target=target.name)
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


def estimated(
    name: str, path: str, target: Estimator, timeout: float, signature: str | None
) -> BenchmarkResult:
    """Return the result of a file on a target that estimates."""
    result = _with_sizes(BenchmarkResult(name, path, target.name, target=target.name))
    if signature is not None:
        said = f"target {target.name!r} estimates the first signature alone, not {signature!r}"
        return dataclasses.replace(result, status="refused", reason=said)
    try:
        found = target.estimate(Path(path), timeout)
    except (ModelRefused, DelegateMismatch, ValueError, ImportError, OSError) as error:
        said, failure = str(error), error.__cause__
        status = failure.status if isinstance(failure, ChildFailure) else "refused"
        return dataclasses.replace(result, status=status, reason=said)
    return dataclasses.replace(
        result, median_ms=found.ms, placement=found.placement, estimated_by=found.by
    ).with_metrics(**found.metrics)


def measured_elsewhere(
    name: str, path: str, target: Measurer, settings: Settings, signature: str | None
) -> BenchmarkResult:
    """Return the result of a file that another program measures."""
    result = _with_sizes(
        BenchmarkResult(name, path, settings.delegate, threads=settings.threads, target=target.name)
    )
    if signature is not None:
        said = f"target {target.name!r} measures the first signature alone, not {signature!r}"
        return dataclasses.replace(result, status="refused", reason=said)
    try:
        found = target.measure(Path(path), settings)
    except (DelegateMismatch, ModelRefused, ModelFileError, ImportError) as error:
        failure = error.__cause__
        status = failure.status if isinstance(failure, ChildFailure) else "refused"
        return dataclasses.replace(result, status=status, reason=str(error))
    except OSError as error:
        return dataclasses.replace(result, status="error", reason=str(error))
    return dataclasses.replace(
        result,
        placement=found.placement,
        load_ms=found.load_ms,
        runs=found.runs,
        mean_ms=found.mean_ms,
        min_ms=found.min_ms,
        std_ms=found.std_ms,
        median_ms=found.median_ms,
        measured_by=found.by,
        emulated=found.emulated,
    ).with_metrics(**found.metrics)


def _with_sizes(result: BenchmarkResult) -> BenchmarkResult:
    try:
        size, packed = tflite.sizes(result.path)
    except OSError:
        return result
    return dataclasses.replace(result, bytes=size, gzip_bytes=packed)


def store(inputs: Any, stack: contextlib.ExitStack) -> Inputs | None:
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
    return Inputs(path, names)
