"""What a target is: a machine that files are measured on, or a model of one; and the registry."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from ..arguments import check_text, refuse
from ..engines.base import Placement
from ..registry import Registry
from ..system.child import Child


class Session(NamedTuple):
    """A worker that runs on a target.

    >>> from pathlib import Path
    >>> from tfcompress import edge
    >>> with edge.Local().session([Path("model.tflite")]) as session:
    ...     [Path(path).name for path in session.paths]
    ['model.tflite']

    Attributes:
        child: Sends the worker its requests; `worker.py` lists the commands.
        paths: Where the files of the session lie on the target, in the order in which they were
            given.
    """

    child: Child
    paths: Sequence[str]


@runtime_checkable
class Target(Protocol):
    """A machine that files are measured on.

    A target copies the folder `tfcompress/edge` and the files of a session to the machine, and
    starts `python edge` there. That process is the worker. It reads requests from stdin and writes
    answers to stdout, so a target needs no more than a program that connects the two streams, such
    as ssh or adb. `Local` is the simplest example.

    >>> from tfcompress import edge
    >>> isinstance(edge.Local(), edge.Target), edge.Local().emulated
    (True, False)

    Attributes:
        name: The name in results and on the command line: `tfcompress bench --target NAME`.
        emulated: Whether latencies mean nothing there, because the processor is emulated.
    """

    @property
    def name(self) -> str:
        """Return the name in results and on the command line."""

    @property
    def emulated(self) -> bool:
        """Return whether latencies mean nothing there."""

    def session(self, files: Sequence[Path]) -> AbstractContextManager[Session]:
        """Start a worker that can read some files; end it, and remove them, after the `with` block.

        Each file of a benchmark gets a session of its own, and all sessions are open at once.

        Args:
            files: Files on this machine, with different names.

        Returns:
            A context manager that gives the session.

        Raises:
            OSError: The machine cannot be reached.
        """


@dataclass(frozen=True)
class Estimate:
    """The figures of a file on a device that is not there.

    >>> from tfcompress import edge
    >>> placed = edge.Placement("npu", ops_total=4, ops_delegated=4, partitions=1)
    >>> edge.Estimate(placed, by="a simulator 1.0", metrics={"cycles": 1200}).metrics
    {'cycles': 1200}

    Attributes:
        placement: Which ops the device takes.
        by: Name and version of the program that the figures come from, and what they hold for.
        ms: Milliseconds of one run on the device; None if the program does not tell.
        metrics: Other figures by name, such as "arena bytes".
        ops: Names of the ops that the runtime of the device must have, sorted.
    """

    placement: Placement
    by: str
    ms: float | None = None
    metrics: Mapping[str, float | int | str] = field(default_factory=dict)
    ops: tuple[str, ...] = ()


@runtime_checkable
class Estimator(Protocol):
    """A target without hardware: a program that tells what a device would do with a file.

    `edge.benchmark` takes it in place of a `Target`, and marks its results as estimated.

    >>> from tfcompress import edge
    >>> isinstance(edge.Local(), edge.Estimator)
    False

    Attributes:
        name: The name in results and on the command line: `tfcompress bench --target NAME`.
    """

    @property
    def name(self) -> str:
        """Return the name in results and on the command line."""

    def estimate(self, path: Path, timeout: float = 120.0) -> Estimate:
        """Estimate what the device does with a file, in a child process.

        Args:
            path: The .tflite file.
            timeout: Seconds that the child process gets. Defaults to 120.

        Returns:
            The figures.

        Raises:
            ModelRefused: The device cannot run the file, or the process died of it.
            ModelFileError: The file is missing, corrupt, or no .tflite file.
            ImportError: The program is not installed; the message says how to install it.
        """


@dataclass(frozen=True)
class Settings:
    """What a target is asked to measure, with the arguments of `edge.benchmark`.

    >>> from tfcompress import edge
    >>> edge.Settings("gpu").min_runs
    50

    Attributes:
        delegate: One of the target's delegates.
        threads: Number of CPU threads; None is one. Defaults to None.
        min_runs: Smallest number of runs to measure. Defaults to 50.
        min_seconds: Shortest time of measuring, in seconds. Defaults to 1.
        warmup: Number of runs after the first, before the measured ones. Defaults to 10.
        timeout: Seconds that everything else may take. Defaults to 120.
    """

    delegate: str
    threads: int | None = None
    min_runs: int = 50
    min_seconds: float = 1.0
    warmup: int = 10
    timeout: float = 120.0


@dataclass(frozen=True)
class Measurement:
    """The figures of a file that another program measured on a device.

    >>> from tfcompress import edge
    >>> edge.Measurement("a program on a phone", mean_ms=1.5, runs=50).placement is None
    True

    Attributes:
        by: The program and the device that it ran on.
        placement: Which ops the delegate took; None if the program does not tell.
        load_ms: Milliseconds to load the file.
        runs: Number of runs.
        mean_ms: Mean of all runs, in milliseconds.
        min_ms: Fastest run, in milliseconds.
        std_ms: Standard deviation of all runs, in milliseconds.
        median_ms: Median of all runs, in milliseconds; None if the program does not tell.
        metrics: Other figures by name, such as "max ms".
        emulated: Whether latencies mean nothing there, because the processor is emulated.
    """

    by: str
    placement: Placement | None = None
    load_ms: float | None = None
    runs: int = 0
    mean_ms: float | None = None
    min_ms: float | None = None
    std_ms: float | None = None
    median_ms: float | None = None
    metrics: Mapping[str, float | int | str] = field(default_factory=dict)
    emulated: bool = False


@runtime_checkable
class Measurer(Protocol):
    """A device that another program measures files on, where the worker cannot run.

    `edge.benchmark` takes it in place of a `Target`, and its results say who measured. Files are
    measured one after the other, so that there are no speed-ups.

    >>> from tfcompress import edge
    >>> isinstance(edge.Adb(), edge.Measurer), isinstance(edge.Local(), edge.Measurer)
    (True, False)

    Attributes:
        name: The name in results and on the command line: `tfcompress bench --target NAME`.
        delegates: Names of the delegates that it can be asked for.
    """

    @property
    def name(self) -> str:
        """Return the name in results and on the command line."""

    @property
    def delegates(self) -> Sequence[str]:
        """Return the names of the delegates that it can be asked for."""

    def measure(self, path: Path, settings: Settings) -> Measurement:
        """Measure a file, and leave nothing on the device.

        Args:
            path: The .tflite file.
            settings: What to measure.

        Returns:
            The figures.

        Raises:
            ModelRefused: The device cannot run the file, or the program died of it.
            DelegateMismatch: Its outputs are not those of this machine.
            ModelFileError: The file is missing, corrupt, or no .tflite file.
            OSError: The device cannot be reached, or something is missing.
        """


AnyTarget = Target | Estimator | Measurer

TARGETS: Registry[AnyTarget] = Registry("target")


def register_target(target: AnyTarget) -> None:
    """Make a target known by its name: `tfcompress bench --import MODULE --target NAME`.

    >>> from tfcompress import edge
    >>> edge.register_target(edge.Local("ci-runner"))

    Args:
        target: The target.

    Raises:
        TypeError: It has no name, or none of `session`, `estimate` and `measure`.
        ValueError: There is another target of this name.
    """
    check_any_target(target)
    TARGETS.add(target)


def check_target(target: object) -> None:
    """Refuse what is no target that runs files.

    Args:
        target: The object.

    Raises:
        TypeError: It has no `name`, `emulated` or `session`.
    """
    if isinstance(target, type) or not isinstance(target, Target):
        wanted = "a target with a name, emulated and session(files), such as edge.Local()"
        refuse("target", wanted, target, TypeError)
    check_text("target.name", target.name)


def check_any_target(target: object) -> None:
    """Refuse what `edge.benchmark` cannot take as a target.

    Args:
        target: The object.

    Raises:
        TypeError: It neither runs files nor estimates or measures them.
    """
    if isinstance(target, Estimator | Measurer) and not isinstance(target, type):
        check_text("target.name", target.name)
    else:
        check_target(target)
