"""Running a pass over a .tflite file, in a child process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfcompress.converters.file.model import Inspection
from tfcompress.converters.jobs.run import ChildError, run
from tfcompress.converters.passes.base import Pass
from tfcompress.edge.system.scratch import raise_if_full

from .errors import ConversionError


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
