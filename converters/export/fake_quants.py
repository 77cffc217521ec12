"""Ops before a FakeQuant of an exported graph -> ops that the TensorFlow converter makes int8.

The converter knows the range of a tensor from the FakeQuant behind it. An op that other ops stand
behind stays in float.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

_FAKE_QUANT = "FakeQuantWithMinMaxArgs"
_PLACING = {"ExpandDims", "Identity", "Reshape", "Squeeze"}
_REWRITTEN = {*_PLACING, "Neg", "Square"}
_LOWEST = {"Relu": 0.0, "Relu6": 0.0}
_HIGHEST = {"Relu6": 6.0}


def fuse_with_ranges(nodes: Any, kept: Collection[str]) -> int:
    """Drop bounds that a FakeQuant sets by itself, and compute squares as products.

    `ReLU(max_value=1)` is a ReLU and a minimum. Where its range ends at 1, the ReLU is enough:
    TFLite computes it within the op before it. The converter does not do so in TRANSPOSE_CONV,
    behind which a ReLU is dropped, too. Int8 has a kernel of MUL, and none of SQUARE and NEG.

    Args:
        nodes: The `NodeDef`s of a function, which are changed.
        kept: Names of nodes whose values are outputs.

    Returns:
        The number of nodes that were changed.
    """
    by_name = {node.name: node for node in nodes}
    readers: dict[str, int] = dict.fromkeys(kept, 2)  # as if others read them
    for node in by_name.values():
        for tensor in node.input:
            readers[_name(tensor)] = readers.get(_name(tensor), 0) + 1
    changed = 0
    for fake_quant in [node for node in by_name.values() if node.op == _FAKE_QUANT]:
        reader = fake_quant
        while (node := by_name.get(_name(reader.input[0]))) is not None:
            source = _unbounded(node, by_name, fake_quant)
            if readers[node.name] > 1 or (source is None and node.op not in _REWRITTEN):
                break
            if source is not None:
                reader.input[0] = source
                changed += 1
            elif node.op == "Neg":
                _multiply(nodes, node)
                reader.input[0] = reader.input[0].replace(":y:", ":z:")
                changed += 1
                break
            elif node.op == "Square":
                node.op = "Mul"
                node.input.insert(1, node.input[0])
                reader.input[0] = reader.input[0].replace(":y:", ":z:")  # its name in a function
                changed += 1
                break
            else:
                reader = node
    return changed


def _multiply(nodes: Any, negation: Any) -> None:
    """Make a negation a product with -1."""
    from tensorflow import make_tensor_proto

    dtype = negation.attr["T"].type
    factor = nodes.add(op="Const", name=f"{negation.name}_factor")
    factor.attr["dtype"].type = dtype
    factor.attr["value"].tensor.CopyFrom(make_tensor_proto(-1.0, dtype))
    negation.op = "Mul"
    negation.input.insert(1, f"{factor.name}:output:0")


def _unbounded(node: Any, by_name: dict[str, Any], fake_quant: Any) -> str | None:
    """Return what an op sets bounds to; None if that changes a rounded value, or it sets none."""
    bounds = _bounds(node, by_name)
    if bounds is None:
        return None
    given = fake_quant.attr
    low = given["min"].f if "min" in given else -6.0
    high = given["max"].f if "max" in given else 6.0
    half = (high - low) / (2 ** (given["num_bits"].i if "num_bits" in given else 8) - 1) / 2
    source, lowest, highest = bounds
    # A bound within half a step of the end of the range is rounded to that end.
    return source if lowest < low + half and highest > high - half else None


def _bounds(node: Any, by_name: dict[str, Any]) -> tuple[str, float, float] | None:
    """Return what an op sets bounds to, and these; None if it is no such op."""
    from tensorflow import make_ndarray

    if node.op in _LOWEST and _is_transposed(node, by_name):
        return str(node.input[0]), _LOWEST[node.op], _HIGHEST.get(node.op, float("inf"))
    for place in (1, 0) if node.op in ("Maximum", "Minimum") else ():
        constant = by_name.get(_name(node.input[place]))
        if constant is not None and constant.op == "Const":
            values, source = make_ndarray(constant.attr["value"].tensor), node.input[1 - place]
            if node.op == "Maximum":
                return str(source), float(np.max(values)), float("inf")
            return str(source), float("-inf"), float(np.min(values))
    return None


def _is_transposed(node: Any, by_name: dict[str, Any]) -> bool:
    """Return whether an op reads a transposed convolution, with its bias or without."""
    while (node := by_name.get(_name(node.input[0]))) is not None:
        if node.op == "Conv2DBackpropInput":
            return True
        if node.op not in {*_PLACING, "AddV2", "BiasAdd"}:
            return False
    return False


def _name(tensor: str) -> str:
    """Return the name of the node that makes a tensor, or that is waited for."""
    return tensor.lstrip("^").split(":")[0]
