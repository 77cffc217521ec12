"""Child process: a SavedModel with several signatures -> a .tflite file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .converter import convert
from .read import describe, load_error

Json = dict[str, Any]


def job(request: Json) -> Json:
    """Write the file at `request["out"]`, or say in "error" why there is none."""
    out = Path(request["out"])
    try:
        content = convert(
            request["saved_model"], request["options"], signatures=request["signatures"]
        )
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    out.write_bytes(content)
    return {"file": {**describe(content), "load_error": load_error(out)}}
