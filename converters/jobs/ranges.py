"""Measured ranges in a float .tflite file, which the converter's quantizer reads."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ..passes.graph import DTYPES, Graph

_TINY = 1e-30
_LEAST_SHARE = 2.0**-9


def producers(graph: Graph) -> dict[int, Any]:
    """Return the op that computes each tensor."""
    return {int(out): node for node in graph.tables.operators for out in node.outputs}


def is_float(graph: Graph, index: int) -> bool:
    """Return whether a tensor holds real numbers."""
    return index >= 0 and DTYPES.get(graph[index].type) == np.dtype("<f4")


def range_of(graph: Graph, index: int) -> tuple[float, float] | None:
    """Return the smallest and largest value of a float tensor, or None if they are not known."""
    if not is_float(graph, index):
        return None
    if graph.constant(index):
        values = graph.array(index)
        return float(values.min()), float(values.max())
    found = graph[index].quantization
    if found is None or found.min is None or len(found.min) != 1:
        return None
    return float(found.min[0]), float(found.max[0])


def give_range(graph: Graph, index: int, low: float, high: float) -> None:
    """Store a range for a tensor that has none yet."""
    graph[index].quantization = schema.QuantizationParametersT(
        min=np.array([low], np.float32), max=np.array([high], np.float32)
    )


def set_range(graph: Graph, index: int, low: float, high: float) -> None:
    """Store another range for a computed tensor, if it has one."""
    found = graph[index].quantization
    if found is not None and found.min is not None and not graph.constant(index):
        found.min, found.max = np.array([low], np.float32), np.array([high], np.float32)


def widen(graph: Graph) -> bool:
    """Widen the ranges whose steps would be too small for a file to load.

    No file holds a step of zero, so a tensor that is always zero gets the range of 0 to 1. XNNPACK
    adds tensors whose steps are at least 2^-10 of the step of the sum.

    Args:
        graph: A float graph. It is changed.

    Returns:
        Whether it was changed.
    """
    changed = False
    for index in producers(graph):
        step = step_of(graph, index)
        if step is not None and step < _TINY:
            set_range(graph, index, 0.0, 1.0)
            changed = True
    for node in graph.tables.operators:
        total = step_of(graph, int(node.outputs[0])) if graph.op(node) in ("ADD", "SUB") else None
        for index in map(int, node.inputs if total else ()):
            step, least = step_of(graph, index), (total or 0.0) * _LEAST_SHARE
            if step is not None and step < least and not graph.constant(index):
                set_range(graph, index, -127 * least, 128 * least)
                changed = True
    return changed


def step_of(graph: Graph, index: int) -> float | None:
    """Return the value of one int8 step of a tensor, or None if its range is not known."""
    found = range_of(graph, index)
    return None if found is None else (max(found[1], 0.0) - min(found[0], 0.0)) / 255
