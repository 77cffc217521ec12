"""The pass behind `sparsify`: weights with zeros -> TFLite's sparse encoding."""

from __future__ import annotations

from typing import Any

from .base import Refused, Rewritten
from .flatbuffer import pack, unpack
from .sparse_encoding.rewriting import dynamic_range, rewrite_weights, round_weights

Json = dict[str, Any]

# Sums in another order differ in the last of float32's seven digits, layer after layer.
_OTHER_ORDER = 1e-4


def rewrite(
    content: bytes,
    *,
    int8_weights: bool = False,
    names: bool = True,
    skip_zeros: bool = False,
    unsafe: str = "",
) -> Rewritten:
    """Store weights sparse wherever that makes the file smaller.

    Args:
        content: The file.
        int8_weights: Whether to round float weights to int8 first. Defaults to False.
        names: Whether to keep the names of tensors. Defaults to True.
        skip_zeros: Whether FULLY_CONNECTED may compute with sparse weights. Defaults to False.
        unsafe: Why no weight may be unpacked by DENSIFY; "" if they may. Defaults to "".

    Returns:
        The file, no larger than before. Its report lists the weights: the fields of `SparseWeight`.
        Its outputs are equal bit for bit: with `int8_weights`, to those of the rounded weights.
        With `skip_zeros` they may differ by a 10,000th of the largest.

    Raises:
        Refused: The file has no sparse form that computes the same.
    """
    model = unpack(content)
    name = dynamic_range(model)
    if name:
        raise Refused(
            f"is a dynamic-range file: '{name}' is stored in integers and computes with float "
            "inputs, for which the runtime has no sparse form. Convert the model to Float32(), "
            "Float16() or Int8(), or take the float32 file and Sparse(int8_weights=True)"
        )
    grids, rounded = {}, None
    if int8_weights:
        grids = round_weights(model)
        rounded = pack(model)
        model = unpack(rounded)
    weights = rewrite_weights(model, grids, unsafe, skip_zeros)
    sparse = pack(model, names)
    if len(sparse) >= len(content):
        return Rewritten(content, [_as_before(weight) for weight in weights])
    return Rewritten(sparse, weights, _OTHER_ORDER if skip_zeros else 0.0, rounded)


def _as_before(weight: Json) -> Json:
    reason = weight["reason"] or "the file would not be smaller"
    return {**weight, "bytes_after": weight["bytes_before"], "encoding": "", "reason": reason}
