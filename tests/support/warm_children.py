"""Children of the converters, and of isolated Runners, that start at once.

Each is forked off a process that has imported TensorFlow and the runtime already, which is most of
the time that a small conversion takes. Apart from that it is the process that users start: it runs
the same `__main__.py`. The notebooks, the demo and the command line start theirs as users do.
"""

import contextlib
import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

CONTEXT = multiprocessing.get_context("forkserver")


@contextlib.contextmanager
def warm_children() -> Iterator[None]:
    """Make `converters.jobs.run` and `edge.Runner` start theirs so, in the `with` block."""
    from tfcompress.converters.jobs import run
    from tfcompress.edge.engines import isolated

    CONTEXT.set_forkserver_preload(["tests.support.preloaded", __name__])
    main = Path(run.__file__).with_name("__main__.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_start", lambda folder: WarmProcess(main, folder))
        patch.setattr(isolated, "LOCAL", WarmLocal())
        yield


class WarmLocal:
    """This machine as a target whose workers start at once."""

    name, emulated = "warm", False

    @contextlib.contextmanager
    def session(self, files: Sequence[Path]) -> Iterator[Any]:
        # Not at the top: the process that children are forked off imports this module.
        from tfcompress import edge

        main = Path(edge.__file__).with_name("__main__.py")
        with (
            tempfile.TemporaryDirectory() as folder,
            edge.Child(WarmProcess(main, Path(folder))) as child,
        ):
            yield edge.Session(child, [os.fspath(file) for file in files])


class WarmProcess:
    """A forked process as the peer of a `Child`; see `edge.system.child.Process`."""

    def __init__(self, main: Path, folder: Path) -> None:
        self._log = tempfile.NamedTemporaryFile(dir=folder)  # noqa: SIM115, closed by `close`
        reads, requests = CONTEXT.Pipe(duplex=False)
        answers, writes = CONTEXT.Pipe(duplex=False)
        self._process = CONTEXT.Process(
            target=_serve, args=(str(main), reads, writes, self._log.name)
        )
        self._process.start()
        # The other process has its own copies; the streams end only when all copies are closed.
        reads.close()
        writes.close()
        self.requests = os.fdopen(os.dup(requests.fileno()), "wb")
        self.answers = os.fdopen(os.dup(answers.fileno()), "rb")
        requests.close()
        answers.close()

    def wait(self, timeout: float) -> int | None:
        self._process.join(timeout)
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def log(self) -> str:
        return Path(self._log.name).read_text("utf-8", "replace")

    def close(self) -> None:
        self.answers.close()
        self._log.close()
        self._process.close()


def _serve(main: str, reads: Connection, writes: Connection, log: str) -> None:
    """Do what `python main < reads > writes 2> log` does."""
    os.dup2(reads.fileno(), 0)
    os.dup2(writes.fileno(), 1)
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), 2)
    reads.close()
    writes.close()
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    runpy.run_path(main, run_name="__main__")
