"""Child process: where a .tflite file can be cut, and the two files of a cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..passes.base import Refused
from ..passes.equality import engines, feeds
from ..passes.flatbuffer import unpack
from ..passes.split import parts, places, signed
from .read import load_error
from .tensor_values import inputs_of

Json = dict[str, Any]


def job(request: Json) -> Json:
    """Return the "places" of the file at `request["path"]`, or cut it at each of `request["at"]`.

    For each cut, two files are written into `request["folder"]`; "differences" says of each in
    which output the two together differ from the whole, or why they do not run.
    """
    path = Path(request["path"])
    content = path.read_bytes()
    try:
        if "at" not in request:
            return {"places": [place._asdict() for place in places(content)]}
        whole = Path(request["folder"], "whole.tflite")
        whole.write_bytes(signed(content))
        found = []
        for at in request["at"]:
            files = [Path(request["folder"], f"{at}_{part}.tflite") for part in (1, 2)]
            for file, part in zip(files, parts(content, at), strict=True):
                file.write_bytes(part)
            found.append(difference(whole, *files))
        return {"differences": found}
    except Refused as error:
        return {"refused": str(error)}


def difference(whole: Path, first: Path, second: Path) -> str:
    """Say where two files, one after the other, compute something else than the whole.

    Args:
        whole: The file that was cut.
        first: The file of its first ops.
        second: The file of the others.

    Returns:
        A sentence; "" if the outputs are equal, bit for bit, on every engine that runs the whole.
    """
    for file in (first, second):
        if error := load_error(file):
            return f"the runtime does not load a part: {error}"
    ran = False
    for name, run in engines().items():
        for feed in feeds(whole, (1.0,)):
            [(key, given)] = feed.items()
            try:
                wanted = run(whole, feed)
            except (RuntimeError, ValueError):
                continue
            ran = True
            try:
                found = run(first, {key: _inputs(first, given)})
                known = {name.removeprefix(f"{key}."): value for name, value in found.items()}
                found |= run(second, {key: _inputs(second, {**given, **known})})
            except (RuntimeError, ValueError) as error:
                return f"on {name} a part fails: {error}"
            for output, value in wanted.items():
                if not np.array_equal(value, found[output], equal_nan=value.dtype.kind == "f"):
                    return f"on {name}, output '{output}' differs"
    return "" if ran else "the runtime runs it neither with XNNPACK nor without"


def _inputs(file: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Return those values that a file takes, by name."""
    names = inputs_of(unpack(file.read_bytes()))
    return {name: values[name] for name in names}
