"""What weights are stored and computed in, where activations are float. Runs in child processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .graph import Graph
from .int4 import Integers, quantization, set_int4
from .rounding import best_scales, largest_scales, nearest
from .runtime_note import at_least

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Form:
    """What weights are stored and computed in.

    Attributes:
        bits: 8 or 4.
        block: Weights that share a scale, along the sums of products; None for all of a row.
        activations: "int8" for sums of integers, where the op has that, or "float32".
        rounding: "nearest", or "gptq" for what samples say about dense layers.
    """

    bits: int
    block: int | None = None
    activations: str = "float32"
    rounding: str = "nearest"


# Form of the weights -> versions of the ops that read them, and the oldest release with all.
VERSIONS = {
    8: {"FULLY_CONNECTED": 12, "DEQUANTIZE": 5, "GATHER": 2, "CAST": 1},
    4: {"FULLY_CONNECTED": 12, "DEQUANTIZE": 6, "GATHER": 7, "CAST": 6},
}
_RELEASES = {("FULLY_CONNECTED", 12): "2.17.0", ("DEQUANTIZE", 5): "2.7.0",
             ("DEQUANTIZE", 6): "2.18.0", ("GATHER", 7): "2.15.0"}  # fmt: skip


def reshape(graph: Graph, before: Any, source: int, target: int) -> None:
    """Insert a RESHAPE op before another op, to the shape of the target."""
    signature = graph[target].shapeSignature
    sizes = graph[target].shape if signature is None else signature
    shape = graph.add(None, np.array(sizes, np.int32))
    graph[shape].name = new_name(graph, target, b"shape")
    node = graph.insert(before, "RESHAPE", [source, shape], target, 1)
    node.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
    node.builtinOptions = schema.ReshapeOptionsT(newShape=np.array(sizes, np.int32))


def rounded(rows: Array, form: Form) -> Integers:
    """Return rows as integers, each with the step that the form asks for."""
    scales = (
        largest_scales(rows, form.bits)
        if form.rounding == "nearest"
        else best_scales(rows, np.ones(rows.shape[1]), form.bits)
    )
    return Integers(nearest(rows, scales, form.bits), scales)


def real_values(found: Integers) -> Array:
    """Return what the rows of integers stand for."""
    return (found.values * found.scales[:, None]).astype(np.float32)


def store(graph: Graph, index: int, found: Integers, bits: int, axis: int = 0) -> None:
    """Store integers of 8 or 4 bits for a tensor."""
    if bits == 4:
        set_int4(graph, index, found, axis)
    else:
        graph.set_array(index, found.values)
        graph[index].quantization = quantization(found.scales, axis)


def new_name(graph: Graph, index: int, suffix: bytes) -> bytes:
    """Return the name of a tensor that belongs to another one."""
    return bytes(graph[index].name or b"") + b"/" + suffix


def note(graph: Graph, op: str, version: int) -> None:
    """Note in the file the oldest runtime that knows a version of an op."""
    if (op, version) in _RELEASES:
        at_least(graph.model, _RELEASES[op, version])
