"""Children of the converters that start at once.

Each is forked off a process that has imported TensorFlow already, which is most of what a small
conversion takes. Else it is what `converters.child` starts: its `__main__.py`, in a process of its
own. The notebooks, the demo and the command line start theirs as ever.
"""

import contextlib
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def warm_children() -> Iterator[None]:
    """While it is open, `converters.child` starts children so."""
    from tfcompress.converters.jobs import run as child

    main = str(Path(child.__file__).with_name("__main__.py"))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.preloaded", __name__])

    def exit_code(job: str, request: Path, log: Path, timeout: float | None) -> int:
        process = context.Process(target=_run, args=(main, job, str(request), str(log)))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(job, timeout or 0)
        assert process.exitcode is not None
        return process.exitcode

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child, "_exit_code", exit_code)
        yield


def _run(main: str, job: str, request: str, log: str) -> None:
    """What `python main job request > log 2>&1` does."""
    console = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(console, 1)
    os.dup2(console, 2)
    sys.argv = [main, job, request]
    runpy.run_path(main, run_name="__main__")
