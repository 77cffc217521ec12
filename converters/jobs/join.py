"""Child process: several .tflite files -> one with a signature for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..passes.base import Refused
from ..passes.equality import Feed, engines, feeds, outputs_differ
from ..passes.join import join
from .read import describe, load_error

Json = dict[str, Any]


def job(request: Json) -> Json:
    """Write the file at `request["out"]`; say in "refused" or "difference" why it is wrong."""
    parts, out = [Path(path) for path in request["paths"]], Path(request["out"])
    try:
        content = join([path.read_bytes() for path in parts], request["keys"])
    except Refused as error:
        return {"refused": str(error)}
    out.write_bytes(content)
    about = {**describe(content), "load_error": load_error(out)}
    found = "" if about["load_error"] else difference(parts, request["keys"], out)
    return {"file": about, "difference": found}


def difference(parts: list[Path], keys: list[str], joined: Path) -> str:
    """Say where a signature computes something else than the file that it was made from.

    Args:
        parts: The files that were joined.
        keys: The signature of each in the new file.
        joined: The new file.

    Returns:
        A sentence; "" if the outputs are equal, bit for bit, on every engine that runs the parts.
    """
    given = [next(feeds(part, (1.0,))) for part in parts]
    feed: Feed = {key: next(iter(one.values())) for key, one in zip(keys, given, strict=True)}
    ran = False
    for name, run in engines().items():
        try:
            wanted = {
                f"{key}.{output.partition('.')[2]}": value
                for part, key, one in zip(parts, keys, given, strict=True)
                for output, value in run(part, one).items()
            }
        except (RuntimeError, ValueError):
            continue
        ran = True
        try:
            found = run(joined, feed)
        except (RuntimeError, ValueError) as error:
            return f"on {name} it fails: {error}"
        if said := outputs_differ(wanted, found):
            return f"on {name}, {said}"
    return "" if ran else "the runtime runs a part neither with XNNPACK nor without"
