"""This machine as a target: a child process of this one."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..system.child import Child, Process, environment
from .base import TARGETS, Session


@dataclass(frozen=True)
class Local:
    """This machine: a child process, which a crash of the runtime ends alone.

    >>> from tfcompress import edge
    >>> from tfcompress.edge.system.tflite import PROBE
    >>> result = edge.benchmark(PROBE, target=edge.Local("build server"), min_seconds=0.0)
    >>> result.status, result.target
    ('ok', 'build server')

    Args:
        name: The name in results. Defaults to `"local"`.
        emulated: Whether this machine is emulated, so that its latencies mean nothing. Defaults to
            False.
    """

    name: str = "local"
    emulated: bool = False

    @contextlib.contextmanager
    def session(self, files: Sequence[Path]) -> Iterator[Session]:
        """Start a worker, under this Python, that reads the files where they are.

        Args:
            files: The files.

        Yields:
            The session.
        """
        folder = Path(__file__).resolve().parents[1]
        with Child(Process([sys.executable, "-P", folder], environment())) as child:
            yield Session(child, [os.fspath(file) for file in files])


LOCAL = Local()
TARGETS.add(LOCAL)
