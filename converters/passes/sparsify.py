"""Child process: a .tflite file -> one with sparse weights, compared with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .equality import difference
from .flatbuffer import pack, unpack
from .sparse_encoding.rewriting import dynamic_range, rewrite, round_weights

Json = dict[str, Any]

# Sums added up in another order differ in the last of float32's seven digits, layer after layer.
_OTHER_ORDER = 1e-4


def job(request: Json) -> Json:
    """Write `request["out"]`, or say in "refused" why not."""
    source, out = Path(request["path"]), Path(request["out"])
    content = source.read_bytes()
    try:
        model = unpack(content)
    except ValueError as error:
        return {"refused": f"cannot be rewritten: {error}"}
    name = dynamic_range(model)
    if name:
        return {
            "refused": f"is a dynamic-range file: '{name}' is stored in integers and computes "
            "with float inputs, for which the runtime has no sparse form. Convert the model to "
            "Float32(), Float16() or Int8(), or take the float32 file and "
            "Sparse(int8_weights=True)"
        }
    grids = {}
    if request["int8_weights"]:
        grids = round_weights(model)
        source = out.with_name("rounded.tflite")
        source.write_bytes(pack(model))
        model = unpack(source.read_bytes())
    weights = rewrite(model, grids, request["unsafe"], request["skip_zeros"])
    sparse = pack(model, request["names"])
    if len(sparse) >= len(content):
        out.write_bytes(content)
        return {"weights": [_as_before(w) for w in weights], "difference": ""}
    out.write_bytes(sparse)
    try:
        tolerance = _OTHER_ORDER if request["skip_zeros"] else 0.0
        return {"weights": weights, "difference": difference(source, out, tolerance)}
    except ValueError as error:
        return {"refused": f"cannot be checked: {error}"}


def _as_before(weight: Json) -> Json:
    reason = weight["reason"] or "the file would not be smaller"
    return {**weight, "bytes_after": weight["bytes_before"], "encoding": "", "reason": reason}
