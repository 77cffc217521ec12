"""Child process: run one pass over a .tflite file, and compare the result with the file before."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..passes.base import Refused, Rewritten
from ..passes.equality import difference
from .read import describe, load_error

Json = dict[str, Any]


def job(request: Json) -> Json:
    """Write the file at `request["out"]`, or say in "refused" or "difference" why it is wrong."""
    source, out = Path(request["path"]), Path(request["out"])
    content = source.read_bytes()
    rewrite = load_pass(request["module"])
    try:
        result = rewrite(content, **request["options"])
    except Refused as error:
        return {"refused": str(error)}
    out.write_bytes(result.content)
    reply = {
        "report": result.report,
        "difference": "",
        "file": {**describe(result.content), "load_error": load_error(out)},
    }
    if result.tolerance is not None and result.content != content:
        if result.reference is not None:
            source = out.with_suffix(".reference")
            source.write_bytes(result.reference)
        try:
            reply["difference"] = difference(source, out, result.tolerance)
        except ValueError as error:
            return {"refused": f"cannot be checked: {error}"}
    return reply


def load_pass(module: str) -> Callable[..., Rewritten]:
    """Return the `rewrite` of a pass.

    Args:
        module: Name of a module in `passes`, or path of a .py file, which is imported as if it
            were in that folder.

    Returns:
        The function.
    """
    package = f"{(__package__ or '').rpartition('.')[0]}.passes"
    if not module.endswith(".py"):
        found = importlib.import_module(f"{package}.{module}")
    else:
        spec = importlib.util.spec_from_file_location(f"{package}.{Path(module).stem}", module)
        if spec is None or spec.loader is None:
            raise ImportError(f"'{module}' is no Python file")
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
    rewrite: Callable[..., Rewritten] = found.rewrite
    return rewrite
