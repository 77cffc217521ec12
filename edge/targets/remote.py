"""The first program on another machine: receives the worker and the files, and cleans up.

It is sent as text to `python -c`, so it imports the standard library only, and is written for old
releases of Python, which it refuses in words. It reads a line of JSON, `[[name, size], ...]`, then
the bytes of these files, then one request in the protocol of `system.child`, which it answers. The
worker, which it starts then, has the two streams from there on.

A process that outlives its connection would disturb the next measurement, so the worker is killed
as soon as nobody can read its answers. The folder is removed when the worker has ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import importlib.util
import json
import os
import platform
import runpy
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import uuid
from pathlib import Path
from typing import Any

PREFIX = "tfcompress-remote-"
OLDEST = (3, 11)
ENDING = (signal.SIGTERM, signal.SIGHUP)
RUNTIMES = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}


def main() -> int:
    """Receive, run and clean up; return the exit code, 128 + N for a worker that signal N ended."""
    on_ending(lambda *_: sys.exit(1))
    remove_leftovers()
    folder = os.fspath(Path(tempfile.gettempdir(), f"{PREFIX}{uuid.uuid4().hex}"))
    try:
        Path(folder).mkdir(0o700)
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        fault = receive(folder) or missing()
        read_line()  # the request
        answer = {"ok": True, "result": {"folder": folder}}
        if fault:
            answer = {"ok": False, "status": "refused", "kind": "OSError", "message": fault}
        os.write(1, json.dumps(answer).encode() + b"\n")
        return 0 if fault else work(folder)
    finally:
        on_ending(signal.SIG_IGN)  # a second signal would stop the removal
        shutil.rmtree(folder, ignore_errors=True)


def on_ending(handler: Any) -> None:
    """Say what the signals that ask this program to end do."""
    for number in ENDING:
        signal.signal(number, handler)


def receive(folder: str) -> str:
    """Write the files that stdin holds; return what went wrong, or nothing."""
    fault = ""
    for name, size in json.loads(read_line()):
        content = read(size)  # also after a fault, so that the sender is not stuck
        path = Path(folder, name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            where = tempfile.gettempdir()
            fault = fault or f"cannot write {size:,} bytes of {name} to {where}: {error.strerror}"
    return fault


def missing() -> str:
    """Return what this Python lacks, with the command that installs it, or nothing."""
    release = platform.python_version()
    here = f"{sys.executable} is Python {release} on {platform.machine()}"
    if sys.version_info[:2] < OLDEST:
        return f"{here}; it must be {OLDEST[0]}.{OLDEST[1]} or newer. Give another one with python="
    fault = import_fault("numpy")
    lacks = [f"numpy ({fault})"] if fault else []
    if not any(importlib.util.find_spec(module) for module in RUNTIMES):
        lacks.append("a LiteRT runtime")
    if not lacks:
        return ""
    packages = "numpy ai-edge-litert"
    if platform.machine() == "armv7l":  # for which ai-edge-litert has no wheel
        packages = "'numpy<2' tflite-runtime"
    install = f"{sys.executable} -m pip install {packages}"
    if sys.prefix == sys.base_prefix:  # a distribution's own Python, which takes no packages
        install = (
            f"{sys.executable} -m venv tfcompress && tfcompress/bin/pip install {packages}; "
            'then give python="tfcompress/bin/python"'
        )
    return f"{here}, without {' and '.join(lacks)}. Run there: {install}"


def import_fault(module: str) -> str:
    """Return why a module cannot be imported, or nothing: in a copy, which may die of it."""
    ours, theirs = os.pipe()
    copy = os.fork()
    if copy == 0:
        try:
            importlib.import_module(module)
        except BaseException as error:
            last = (str(error).strip().splitlines() or [""])[-1]
            os.write(theirs, f"{type(error).__name__}: {last}"[:500].encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as stream:
        said = stream.read().decode("utf-8", "replace")
    status = os.waitpid(copy, 0)[1]
    if os.WIFSIGNALED(status):
        said = f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return said


def work(folder: str) -> int:
    """Run the worker to its end, in a copy of this process; kill it if nobody reads its answers."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # until somebody waits for the worker
    worker = os.fork()
    if worker == 0:
        run_worker(folder)

    def watch() -> None:
        poll = select.poll()
        poll.register(1, 0)  # waits for errors alone, such as a stream without a reader
        poll.poll()
        os.kill(worker, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        status = os.waitpid(worker, 0)[1]
    except SystemExit:
        with contextlib.suppress(OSError):  # it has ended
            os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)  # it may write to the folder until then
        raise
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def run_worker(folder: str) -> None:
    """Be the worker, and end this process."""
    code = 1
    try:
        on_ending(signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        sys.argv = [f"{folder}/edge"]
        runpy.run_path(f"{folder}/edge/__main__.py", run_name="__main__")
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def remove_leftovers() -> None:
    """Remove folders of programs like this one that were killed, a minute after that."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            found = path.lstat()
            if found.st_uid != os.getuid() or time.time() - found.st_mtime < 60:
                continue
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if it is held
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def read(size: int) -> bytes:
    """Read so many bytes of stdin, and none beyond: the worker reads those."""
    parts = []
    while size:
        part = os.read(0, min(size, 1 << 20))
        if not part:
            raise EOFError("the connection ended before all files had come")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_line() -> bytes:
    """Read a line of stdin, and no byte beyond."""
    line = bytearray()
    while not line.endswith(b"\n"):
        line += read(1)
    return bytes(line)


if __name__ == "__main__":
    sys.exit(main())
