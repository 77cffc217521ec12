"""SUM in int8 -> MEAN, and MUL by the number of values. Runs in child processes.

TFLite's reference kernel of SUM gives zeros in int8. That of MEAN is right, and both run in
XNNPACK.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ..passes.graph import Graph

_INT8 = schema.TensorType.INT8


def as_means(graph: Graph) -> bool:
    """Compute each int8 sum of n values as n times their mean.

    One step of the mean is 1/n of a step of the sum, so that both are the same integers, and the
    product rounds nothing.

    Args:
        graph: A graph of any precision. It is changed.

    Returns:
        Whether it was changed.
    """
    changed = False
    for node in list(graph.tables.operators):
        count = _count(graph, node) if graph.op(node) == "SUM" else None
        if count is not None:
            _replace(graph, node, count)
            changed = True
    return changed


def _count(graph: Graph, node: Any) -> int | None:
    """Return how many values an int8 sum adds up, or None if that is not known."""
    source, axes, out = (int(index) for index in (*node.inputs[:2], node.outputs[0]))
    if {graph[source].type, graph[out].type} != {_INT8} or not graph.constant(axes):
        return None
    signature = graph[source].shapeSignature
    shape = graph[source].shape if signature is None or not len(signature) else signature
    summed = {int(axis) % len(shape) for axis in graph.array(axes).flat}
    sizes = [int(shape[axis]) for axis in summed]
    return int(np.prod(sizes)) if sizes and min(sizes) > 0 else None


def _replace(graph: Graph, node: Any, count: int) -> None:
    out = int(node.outputs[0])
    mean, factor = graph.add(out), graph.add(out, np.array(127, np.int8))
    graph[mean].name = bytes(graph[out].name) + b"/mean"
    graph[mean].quantization = copy.deepcopy(graph[out].quantization)
    graph[mean].quantization.scale = np.asarray(graph[out].quantization.scale / count, np.float32)
    graph[factor].name = bytes(graph[out].name) + b"/count"
    graph[factor].shapeSignature = None
    graph[factor].quantization = schema.QuantizationParametersT(
        scale=np.array([count / 127], np.float32), zeroPoint=np.zeros(1, np.int64)
    )
    made = graph.insert(node, "MEAN", [int(index) for index in node.inputs], mean, 2)
    made.builtinOptionsType, made.builtinOptions = node.builtinOptionsType, node.builtinOptions
    graph.as_product(node, [mean, factor], 2)
