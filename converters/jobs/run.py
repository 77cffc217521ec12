"""Run a job where it can crash: in a process of its own, with nothing on the console."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tfcompress.edge.system.child import Child, ChildFailure, Peer, Process, environment


class ChildError(RuntimeError):
    """The job gave no reply.

    Attributes:
        reason: "was killed by SIGSEGV", "took longer than 5 s", "failed".
        log: What its process wrote to the console; empty after a timeout.
    """

    def __init__(self, reason: str, log: str = "", said: str = "") -> None:
        lines = [line for line in log.splitlines() if line.strip()]
        last = said or (lines[-1].strip() if lines else "")
        super().__init__(f"{reason}: {last}" if last else reason)
        self.reason = reason
        self.log = log


def run(job: str, request: dict[str, Any], folder: Path, timeout: float | None) -> dict[str, Any]:
    """Run `job(request)` of a module of `converters`, in a child process.

    Args:
        job: Module with a function `job`, as it lies below `converters`: "jobs.lower".
        request: The job's request, JSON values by name.
        folder: Folder for the process's log.
        timeout: Seconds; None waits for ever.

    Returns:
        The job's reply.

    Raises:
        ChildError: The job raised an exception, crashed or took too long.
    """
    with Child(_start(folder)) as child:
        try:
            return child.request(job, timeout, **request)
        except ChildFailure as failure:
            if failure.status == "timeout":
                raise ChildError(f"took longer than {timeout:g} s") from None
            if failure.status == "crashed":
                raise ChildError(failure.ending, child.log()) from None
            raise ChildError("failed", child.log(), failure.reason) from None


def _start(folder: Path) -> Peer:
    """Start the process that runs jobs."""
    main = Path(__file__).with_name("__main__.py")
    variables = environment(CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="2")
    return Process([sys.executable, "-P", main], variables, folder)
