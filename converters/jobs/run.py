"""Running a job where it can crash: in a process of its own, with nothing on the console."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tfcompress.edge.targets.local import ending


class ChildError(RuntimeError):
    """The child process gave no reply.

    Attributes:
        reason: "was killed by SIGSEGV", "took longer than 5 s", "ended with exit code 1".
        log: What it wrote to its console.
    """

    def __init__(self, reason: str, log: str) -> None:
        lines = [line for line in log.splitlines() if line.strip()]
        super().__init__(f"{reason}: {lines[-1].strip()}" if lines else reason)
        self.reason = reason
        self.log = log


def run(job: str, request: dict[str, Any], folder: Path, timeout: float | None) -> dict[str, Any]:
    """Run `job(request)` of a module of `converters`, in a child process.

    Args:
        job: Module with a function `job`, as it lies below `converters`: "jobs.lower".
        request: JSON values.
        folder: An empty folder for what goes between the two.
        timeout: Seconds; None waits for ever.

    Returns:
        What the job returned.

    Raises:
        ChildError: It crashed, failed or took too long.
    """
    file = folder / "request.json"
    file.write_text(json.dumps(request), "utf-8")
    log = folder / "log.txt"
    try:
        code = _exit_code(job, file, log, timeout)
    except subprocess.TimeoutExpired:
        raise ChildError(f"took longer than {timeout:g} s", "") from None
    if code:
        raise ChildError(ending(code), log.read_text("utf-8", "replace"))
    reply: dict[str, Any] = json.loads(file.with_name("reply.json").read_text("utf-8"))
    return reply


def _exit_code(job: str, request: Path, log: Path, timeout: float | None) -> int:
    """Of the child, which writes to the log."""
    main = Path(__file__).with_name("__main__.py")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    # A file takes any amount of output and needs nobody to read it meanwhile.
    with log.open("wb") as console:
        return subprocess.run(
            [sys.executable, "-P", str(main), job, str(request)],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            env=environment,
            timeout=timeout,
            check=False,
        ).returncode
