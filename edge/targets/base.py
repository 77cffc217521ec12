"""What a target is: a machine that files are measured on, and the registry of targets."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from ..arguments import check_text, refuse
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


TARGETS: Registry[Target] = Registry("target")


def register_target(target: Target) -> None:
    """Make a target known by its name: `tfcompress bench --import MODULE --target NAME`.

    >>> from tfcompress import edge
    >>> edge.register_target(edge.Local("ci-runner"))

    Args:
        target: The target.

    Raises:
        TypeError: It has no `name`, `emulated` or `session`.
        ValueError: There is another target of this name.
    """
    check_target(target)
    TARGETS.add(target)


def check_target(target: object) -> None:
    """Refuse what is no target.

    Args:
        target: The object.

    Raises:
        TypeError: It has no `name`, `emulated` or `session`.
    """
    if isinstance(target, type) or not isinstance(target, Target):
        wanted = "a target with a name, emulated and session(files), such as edge.Local()"
        refuse("target", wanted, target, TypeError)
    check_text("target.name", target.name)
