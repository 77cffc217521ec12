"""Weights in float16: half the bytes. What float16 does not hold stays in float32.

The TensorFlow converter can store float16, too, and clips in silence: 101325 becomes 65504, and the
1e-12 of a normalization becomes 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .base import Rewritten
from .flatbuffer import pack, unpack
from .graph import Graph, graphs

Array = np.ndarray[Any, np.dtype[Any]]

TOLERANCE = 2.0**-8
"""Largest error, as a share of a value or of a whole kernel. Rounding alone gives up to 2^-11."""


def rewrite(content: bytes) -> Rewritten:
    """Store each float32 constant as float16, before a DEQUANTIZE op that all its readers share.

    Args:
        content: A float32 file.

    Returns:
        The file, and the names of the constants that stay in float32. The result is not compared
        with the file before, since rounding changes it on purpose.
    """
    model = unpack(content)
    kept: list[str] = []
    for graph in graphs(model):
        halves: dict[int, int] = {}
        for index in range(len(graph.tables.tensors)):
            if not _is_weight(graph, index):
                continue
            if fits(graph.array(index)):
                _store(graph, index, halves)
            else:
                kept.append(graph.name(index))
    return Rewritten(pack(model), {"kept": kept}, tolerance=None)


def fits(values: Array) -> bool:
    """Return whether float16 holds values well enough.

    Each element of a vector counts, since it may stand for a feature of any size: a mean, a scale.
    Of a kernel, the sum of squares counts: a few weights of nearly zero may become zero.

    >>> fits(np.float32([20.0, 0.1])), fits(np.float32([101325.0])), fits(np.float32([1e-12]))
    (True, False, False)

    Args:
        values: Array of float32.

    Returns:
        True if it may be stored as float16.
    """
    with np.errstate(over="ignore"):
        error = np.abs(values.astype(np.float16).astype(np.float64) - values)
    sizes = np.abs(values.astype(np.float64))
    if values.size > max(values.shape, default=1):
        return bool(np.linalg.norm(error) <= TOLERANCE * np.linalg.norm(sizes))
    return bool(np.all(error <= TOLERANCE * sizes))


def _is_weight(graph: Graph, index: int) -> bool:
    tensor = graph[index]
    return bool(
        tensor.type == schema.TensorType.FLOAT32
        and tensor.sparsity is None
        and index not in graph.border
        and graph.constant(index)
        and graph.readers(index)
    )


def _store(graph: Graph, index: int, halves: dict[int, int]) -> None:
    """Store a constant as float16; constants that share a buffer share the new one."""
    buffer = graph[index].buffer
    half = graph.add(index, graph.array(index).astype(np.float16))
    graph[half].buffer = halves.setdefault(buffer, graph[half].buffer)
    graph[index].name += b"_float32"
    graph.compute(index, "DEQUANTIZE", half, 2)
