"""Tables of a dynamic-range file get a scale for each row. Runs in child processes.

The converter gives a table one scale for all rows: where some are large, the others are lost, and a
normalization after the table makes that the size of the whole. It also stores weights that a table
and a dense layer share twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ..passes.base import Refused
from ..passes.flatbuffer import pack, unpack
from ..passes.graph import Graph, graphs
from ..passes.int4 import Integers
from ..passes.tables import look_up
from ..passes.weight_forms import Form, new_name, rounded
from .ranges import is_float

Array = np.ndarray[Any, np.dtype[Any]]

_HALF = 0.5 + 1e-3
"""A number is half a step from its integer at most; the rest is float32's rounding."""


def with_fine_tables(content: bytes, exact: Callable[[], bytes]) -> bytes:
    """Give each table a scale for each row; one that is a kernel, too, reads the kernel's integers.

    Args:
        content: A file with int8 weights and float activations.
        exact: Returns the float file of the same model. It is called if there are tables.

    Returns:
        The file.
    """
    try:
        model = unpack(content)
    except Refused:
        return content
    found = [(graph, node) for graph in graphs(model) for node in _look_ups(graph)]
    if not found:
        return content
    floats = [
        graph.array(index)
        for graph in graphs(unpack(exact()))
        for index in {int(node.inputs[0]) for node in graph.tables.operators if len(node.inputs)}
        if is_float(graph, index) and graph.constant(index) and len(graph[index].shape) == 2
    ]
    for graph, node in found:
        table = int(node.inputs[0])
        step = np.asarray(graph[table].quantization.scale, np.float64)[:, None]
        rows = graph.array(table)
        weights = next((w for w in floats if _is_rounded(w, rows, step)), None)
        if weights is None:
            continue
        [(reader, _)] = graph.readers(int(node.outputs[0]))
        node.outputs = reader.outputs
        graph.remove(reader)
        _finer(graph, node, _kernel(graph, weights) or rounded(weights, Form(8)))
    return pack(model)


def _look_ups(graph: Graph) -> list[Any]:
    """Return the ops that look up int8 rows with one scale, which a DEQUANTIZE op alone reads."""
    return [
        node
        for node in graph.tables.operators
        if graph.op(node) == "GATHER"
        and graph[int(node.inputs[0])].type == schema.TensorType.INT8
        and graph.constant(int(node.inputs[0]))
        and len(graph[int(node.inputs[0])].shape) == 2
        and len(graph[int(node.inputs[0])].quantization.scale) == 1
        and not (node.builtinOptions.axis or node.builtinOptions.batchDims)
        and [graph.op(reader) for reader, _ in graph.readers(int(node.outputs[0]))]
        == ["DEQUANTIZE"]
    ]


def _is_rounded(weights: Array, rows: Array, steps: Array) -> bool:
    """Return whether integers are weights that were rounded to them."""
    if weights.shape != rows.shape:
        return False
    apart = np.abs(weights - rows.astype(np.float64) * steps)
    return bool((apart <= _HALF * steps).all())


def _kernel(graph: Graph, weights: Array) -> Integers | None:
    """Return the integers of a dense layer with these weights, if there is one."""
    for node in graph.tables.operators:
        index = int(node.inputs[1]) if graph.op(node) == "FULLY_CONNECTED" else -1
        if index < 0 or graph[index].type != schema.TensorType.INT8 or not graph.constant(index):
            continue
        scales = np.asarray(graph[index].quantization.scale, np.float32)
        rows = graph.array(index)
        if len(scales) == len(rows) and _is_rounded(
            weights, rows, scales.astype(np.float64)[:, None]
        ):
            return Integers(rows, scales)
    return None


def _finer(graph: Graph, node: Any, found: Integers) -> None:
    """Make an op that now gives float rows look them up as integers and scales."""
    old = int(node.inputs[0])
    rows = graph.add(old, found.values)  # equal buffers are stored once
    graph[rows].quantization = None
    scales = graph.add(None, found.scales[:, None])
    graph[scales].name = new_name(graph, old, b"scales")
    look_up(graph, node, rows, scales, (found.values.shape[1],), 8)
    if not graph.readers(old):
        graph.set_array(old, None)
