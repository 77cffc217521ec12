"""Asking a child process for a job, such as a pass over a .tflite file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfcompress.converters.file.model import Inspection
from tfcompress.converters.jobs.run import ChildError, run
from tfcompress.converters.passes.base import Pass
from tfcompress.edge.system.scratch import raise_if_full

from .errors import ConversionError


def ask(
    job: str, request: dict[str, Any], folder: Path, timeout: float | None, failed: str
) -> dict[str, Any]:
    """Run a job in a child process.

    Args:
        job: Its module below `converters`.
        request: What it is asked.
        folder: Folder for the process's log.
        timeout: Seconds; None for no limit.
        failed: What did not happen if the process gives no reply, such as "'m.tflite' is not cut".

    Returns:
        The job's reply.

    Raises:
        ConversionError: There is no reply.
        OSError: The disk is full.
    """
    try:
        return run(job, request, folder, timeout)
    except ChildError as error:
        raise_if_full(str(error))
        raise ConversionError(f"{failed}: the process {error}.") from error


def run_pass(
    step: Pass, source: Path, folder: Path, timeout: float | None, label: str
) -> tuple[Inspection, Any]:
    """Rewrite a file with a pass, which is compared with the file before.

    Args:
        step: The pass.
        source: The file, which stays as it is.
        folder: Folder for the new file and for what the processes exchange.
        timeout: Seconds for the child process; None for no limit.
        label: Name of the file in errors.

    Returns:
        The new file in `folder`, and the report of the pass.

    Raises:
        ConversionError: The pass refuses the file or crashes, or its file does not load or computes
            something else.
    """
    out = folder / f"{source.stem}_{Path(step.module).stem}.tflite"
    request = {
        "module": step.module,
        "options": step.options,
        "path": str(source.resolve()),
        "out": str(out.resolve()),
    }
    try:
        reply = run("jobs.rewrite", request, folder, timeout)
    except ChildError as error:
        raise_if_full(str(error))
        raise ConversionError(
            f"{label} was not rewritten: the process of pass '{step.module}' {error}"
        ) from error
    if "refused" in reply:
        raise ConversionError(f"{label} {reply['refused']}.")
    if reply["difference"]:
        raise ConversionError(
            f"{label} does not compute the same after pass '{step.module}': {reply['difference']}. "
            "The file before it is fine; please report this."
        )
    found = Inspection.from_description(out, reply["file"])
    if found.load_error:
        raise ConversionError(
            f"The runtime does not load {label} after pass '{step.module}': {found.load_error}"
        )
    return found, reply["report"]
