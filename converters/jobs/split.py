"""Child process: where a .tflite file can be cut, and the two files of a cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..passes.base import Refused
from ..passes.equality import Array, Feed, engines, feeds
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
        known, found = known_runs(whole), []
        for at in request["at"]:
            files = [Path(request["folder"], f"{at}_{part}.tflite") for part in (1, 2)]
            for file, part in zip(files, parts(content, at), strict=True):
                file.write_bytes(part)
            found.append(difference(known, *files))
        return {"differences": found}
    except Refused as error:
        return {"refused": str(error)}


class KnownRun(NamedTuple):
    """A run of the file that is cut.

    Attributes:
        engine: Name of the engine.
        run: The engine.
        key: The signature.
        given: Values by input.
        wanted: Values by `key.output`.
    """

    engine: str
    run: Callable[[Path, Feed], dict[str, Array]]
    key: str
    given: dict[str, Array]
    wanted: dict[str, Array]


def known_runs(whole: Path) -> list[KnownRun]:
    """Run a file on random inputs, on every engine that runs it."""
    found = []
    for name, run in engines().items():
        for feed in feeds(whole, (1.0,)):
            [(key, given)] = feed.items()
            try:
                found.append(KnownRun(name, run, key, given, run(whole, feed)))
            except (RuntimeError, ValueError):
                continue
    return found


def difference(known: list[KnownRun], first: Path, second: Path) -> str:
    """Say where two files, one after the other, compute something else than the whole.

    Args:
        known: Runs of the file that was cut.
        first: The file of its first ops.
        second: The file of the others.

    Returns:
        A sentence; "" if the outputs are equal, bit for bit, on every engine that runs the whole.
    """
    for file in (first, second):
        if error := load_error(file):
            return f"the runtime does not load a part: {error}"
    if not known:
        return "the runtime runs it neither with XNNPACK nor without"
    names = [inputs_of(unpack(file.read_bytes())) for file in (first, second)]
    for name, run, key, given, wanted in known:
        values, found = given, dict[str, Array]()
        try:
            for file, inputs in zip((first, second), names, strict=True):
                made = run(file, {key: {entry: values[entry] for entry in inputs}})
                values = values | {k.removeprefix(f"{key}."): v for k, v in made.items()}
                found |= made
        except (RuntimeError, ValueError) as error:
            return f"on {name} a part fails: {error}"
        for output, value in wanted.items():
            if not np.array_equal(value, found[output], equal_nan=value.dtype.kind == "f"):
                return f"on {name}, output '{output}' differs"
    return ""
