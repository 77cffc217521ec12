"""Inputs of ops with one range for all -> other ranges for their other readers. In child processes.

TFLite's CONCATENATION, MAXIMUM, MINIMUM and SELECT have one scale for inputs and output. The
converter gives that of the output to each input, wherever else that is read: it is clipped there,
or its steps are too coarse.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from ..passes.graph import Graph
from .ranges import range_of

_JOINING = {"CONCATENATION", "MAXIMUM", "MINIMUM", "SELECT", "SELECT_V2"}

_COARSER = 2.0
"""As much wider another range may be: one bit less."""

# The quantizer knows no op that only changes the scale. It leaves this one alone, of slope 1.
_PLACEHOLDER, _SLOPE = "LEAKY_RELU", 1.0


def separate(graph: Graph, in_float: Collection[int] = ()) -> bool:
    """Put an op before those that join ranges, for each input that others read in a finer one.

    Args:
        graph: A float graph whose tensors have ranges. It is changed.
        in_float: Tensors that ops compute in float, which join no ranges. Defaults to none.

    Returns:
        Whether it was changed.
    """
    changed = False
    for node in list(graph.tables.operators):
        if graph.op(node) not in _JOINING or int(node.outputs[0]) in in_float:
            continue
        joint = range_of(graph, int(node.outputs[0]))
        for place, index in enumerate(map(int, node.inputs)):
            own = None if graph.constant(index) else range_of(graph, index)
            if own and joint and _read_elsewhere(graph, node, index) and not _alike(own, joint):
                graph.redirect(node, place, _entrance(graph, node, index))
                changed = True
    return changed


def requantize(graph: Graph) -> bool:
    """Replace the ops that `separate` put in, once the graph is int8, by such that do nothing else.

    Args:
        graph: An int8 graph. It is changed.

    Returns:
        Whether it was changed.
    """
    changed = False
    for node in graph.tables.operators:
        options = node.builtinOptions
        if graph.op(node) != _PLACEHOLDER or options.alpha != _SLOPE:
            continue
        types = {graph[int(index)].type for index in (node.inputs[0], node.outputs[0])}
        if types == {schema.TensorType.INT8}:
            node.opcodeIndex = graph.code("QUANTIZE", 2)
            node.builtinOptionsType = schema.BuiltinOptions.QuantizeOptions
            node.builtinOptions = schema.QuantizeOptionsT()
            changed = True
    return changed


def _entrance(graph: Graph, node: Any, index: int) -> int:
    """Return a copy of a tensor, which only the node will read."""
    entrance = graph.add(index)
    tensor = graph[entrance]
    tensor.name = bytes(graph[index].name) + b"/joined"
    tensor.quantization = copy.deepcopy(tensor.quantization)
    op = graph.insert(node, _PLACEHOLDER, [index], entrance, 1)
    op.builtinOptionsType = schema.BuiltinOptions.LeakyReluOptions
    op.builtinOptions = schema.LeakyReluOptionsT(alpha=_SLOPE)
    return entrance


def _read_elsewhere(graph: Graph, node: Any, index: int) -> bool:
    return index in graph.border or any(reader is not node for reader, _ in graph.readers(index))


def _alike(own: tuple[float, float], joint: tuple[float, float]) -> bool:
    """Return whether a range holds another one and is about as fine."""
    (low, high), (joint_low, joint_high) = (
        (min(ends[0], 0.0), max(ends[1], 0.0)) for ends in (own, joint)
    )
    step = (high - low) / 255
    holds = joint_low <= low + step and high - step <= joint_high
    return holds and joint_high - joint_low <= _COARSER * (high - low)
