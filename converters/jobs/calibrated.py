"""A calibrated float file -> an int8 file, by the quantizer of the TensorFlow converter.

The converter measures the ranges of all tensors and quantizes by them. Between these two steps
stand our repairs: of ranges that hold nothing but a mask, of ranges that tensors share and that
have no width, and of ops that int8 would ruin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ..passes.base import Refused
from ..passes.flatbuffer import pack, unpack
from ..passes.graph import Graph, graphs
from .float_nodes import exact_values, uneven_inputs
from .ranges import measure, widen
from .shared_ranges import requantize, separate
from .softmax_masks import clip_masks
from .sums import as_means

# Ops that copy the bytes of constants, and where these stand among their inputs.
_COPYING = {"ONE_HOT": (2, 3), "PADV2": (2,), "FILL": (1,)}

_RUNS = 100
"""Enough to see the range of the scores again."""


def repair(
    content: bytes, batches: Callable[[], Iterable[dict[str, Any]]], float_inputs: bool
) -> tuple[bytes, list[str]]:
    """Repair what would be lost in int8, before a file is quantized.

    Args:
        content: A float file with measured ranges.
        batches: Returns calibration samples for the file, run by run.
        float_inputs: Whether the inputs of the int8 file are float.

    Returns:
        The file, and the names of the ops that must stay in float.
    """
    try:
        model = unpack(content)
    except Refused:
        return content, []
    changed, names = False, []
    for number, graph in enumerate(graphs(model)):
        if number == 0:
            changed = clip_masks(
                graph, lambda tensors: measure(content, islice(batches(), _RUNS), tensors)
            )
        changed = separate(graph) or changed
        changed = widen(graph) or changed
        keep = exact_values(graph) | (uneven_inputs(graph) if float_inputs else set())
        names += [graph[index].name.decode() for index in sorted(keep)]
    return pack(model) if changed else content, names


def finish(content: bytes) -> bytes:
    """Repair what the quantizer leaves wrong in a file.

    The constants that ops copy get the scale of the tensor that they are copied to: the converter
    gives each one its own, and the 0.0 of a one-hot vector arrives as the byte 0, which may mean
    0.5. Ops that were put in to change a scale do only that. Sums become means.

    Args:
        content: A file with int8 weights; one after quantization-aware training, too.

    Returns:
        The file.
    """
    try:
        model = unpack(content)
    except Refused:
        return content
    changed = False
    for graph in graphs(model):
        changed = requantize(graph) or changed
        changed = as_means(graph) or changed
        for node in graph.tables.operators:
            for place in _COPYING.get(graph.op(node), ()):
                out, tensor = graph[int(node.outputs[0])], int(node.inputs[place])
                if out.type == schema.TensorType.INT8 and graph.constant(tensor):
                    graph.redirect(node, place, _rescaled(graph, tensor, out.quantization))
                    changed = True
    return pack(model) if changed else content


def _rescaled(graph: Graph, tensor: int, wanted: Any) -> int:
    """Return a constant with the values of another one, in another scale."""
    own = graph[tensor].quantization
    real = (graph.array(tensor).astype(np.float64) - own.zeroPoint[0]) * own.scale[0]
    steps = np.rint(real / wanted.scale[0]) + wanted.zeroPoint[0]
    copy = graph.add(tensor, np.clip(steps, -128, 127).astype(np.int8))
    graph[copy].quantization = wanted
    return copy
