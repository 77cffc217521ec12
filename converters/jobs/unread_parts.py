"""SPLIT ops with a part that nothing reads -> SLICE ops of the others. In child processes.

The quantizer keeps such a SPLIT in float in some runs and not in others, on one file. A recurrent
layer that is unrolled has one: in the first step, the forget gate meets a state of zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ..passes.graph import Graph


def drop_unread_parts(graph: Graph) -> None:
    """Replace each SPLIT with an unread part.

    Args:
        graph: A float graph. It is changed.
    """
    for node in list(graph.tables.operators):
        if graph.op(node) != "SPLIT" or not graph.constant(int(node.inputs[0])):
            continue
        outputs = list(map(int, node.outputs))
        read = [index for index in outputs if graph.readers(index) or index in graph.border]
        if len(read) < len(outputs):
            for place, index in enumerate(outputs):
                if index in read:
                    _slice(graph, node, place, index)
            graph.remove(node)


def _slice(graph: Graph, node: Any, place: int, output: int) -> None:
    """Compute one part of a SPLIT by an op of its own."""
    source = int(node.inputs[1])
    rank = len(graph[source].shape)
    axis = int(graph.array(int(node.inputs[0])).reshape(-1)[0]) % rank
    begin, size = np.zeros(rank, np.int32), np.full(rank, -1, np.int32)  # -1: up to the end
    size[axis] = graph[output].shape[axis]
    begin[axis] = place * size[axis]
    inputs = [source, graph.add(None, begin), graph.add(None, size)]
    for index in inputs[1:]:
        graph[index].name = bytes(graph[output].name) + b"/part"
    op = graph.insert(node, "SLICE", inputs, output, 2)
    op.builtinOptionsType = schema.BuiltinOptions.SliceOptions
    op.builtinOptions = schema.SliceOptionsT()
