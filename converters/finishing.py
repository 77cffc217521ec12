"""From the converter's files to those that are written: passes, sparse weights, runtimes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tfcompress.converters.file.model import Inspection
from tfcompress.converters.passes.base import Pass

from .rewriting import run_pass
from .runtimes import Release, check_runtime, needs, runtime_note
from .sparse import Sparse, Sparsified, sparsified


class Lowered(NamedTuple):
    """A file before its passes.

    Attributes:
        file: The file.
        kept_float: Layers that were kept in float, as int8 would ruin them.
        kept_weights: Layer -> why its kernel has 8 bits in a file of 4 bits.
        samples: Calibration samples as `jobs.tensor_values.load` takes them; None for none.
    """

    file: Inspection
    kept_float: tuple[str, ...]
    kept_weights: dict[str, str]
    samples: dict[str, Any] | None = None


class Finished(NamedTuple):
    """A file after all passes.

    Attributes:
        dense: The file before its zeros were stored sparse, which may remove names of layers.
        kept_float: Layers that were kept in float, as int8 would ruin them.
        kept_weights: Layer -> why its weights have more bits than the precision says.
        content: The file as it will be written.
        sparse: What storing the zeros sparse did; None if that was not asked for.
        note: What the oldest runtime does with the file; "" if it loads it.
    """

    dense: Inspection
    kept_float: tuple[str, ...]
    kept_weights: dict[str, str]
    content: bytes
    sparse: Sparsified | None
    note: str


def finish(
    files: Mapping[Path, Lowered],
    passes: Sequence[Sequence[Pass]],
    sparse: Sparse | None,
    release: Release | None,
    timeout: float | None,
) -> list[Finished]:
    """Run the passes for each file, and then `sparsify`, if it is asked for.

    Args:
        files: Path of each file to write -> the file as it was made.
        passes: The passes over each.
        sparse: How to store zeros; None for dense files.
        release: Oldest release of the runtime that must load the files; None for any.
        timeout: Seconds for each child process; None for no limit.

    Returns:
        The files, in the order given.

    Raises:
        ConversionError: A pass refuses a file, or the release is too old for one.
    """
    finished = []
    for (path, low), steps in zip(files.items(), passes, strict=True):
        found, kept = low.file, dict(low.kept_weights)
        for step in steps:
            if step.module == "weight_only":
                step = replace(step, options={**step.options, "samples": low.samples})
            found, report = run_pass(step, found.path, found.path.parent, timeout, path.name)
            if step.module == "weight_only":
                kept |= report
        # What `sparsify` stores needs no newer runtime, and it drops the converter's note.
        note = _check_runtime(found, path, release)
        if sparse is None:
            small, content = None, found.path.read_bytes()
        else:
            small, content = sparsified(found, path, sparse, timeout, path.name)
        finished.append(Finished(found, low.kept_float, kept, content, small, note))
    return finished


def _check_runtime(found: Inspection, path: Path, release: Release | None) -> str:
    needed = needs(found.path)
    if release is None:
        return runtime_note(needed, path.name)
    check_runtime(needed, release, path.name)
    return ""
