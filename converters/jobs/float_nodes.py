"""Ops that must stay in float in an int8 file. Runs in child processes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..passes.graph import Graph
from .ranges import is_float, producers, step_of

# Ops that only place values elsewhere, and ops that change each value by itself.
_PLACING = {"RESHAPE", "EXPAND_DIMS", "SQUEEZE", "TRANSPOSE", "CONCATENATION"}
_AFFINE = {"ADD", "SUB", "MUL", "DIV"}
_ELEMENTWISE = {*_AFFINE, *_PLACING, "ABS", "NEG", "MINIMUM", "MAXIMUM", "FLOOR", "CEIL", "ROUND",
                "FLOOR_DIV", "FLOOR_MOD", "RELU", "RELU6", "STRIDED_SLICE", "SLICE", "TILE",
                "GATHER", "BROADCAST_TO", "SHAPE"}  # fmt: skip

# Ops that jump: a value that is rounded a little lower may become the next integer below.
_JUMPING = {"CAST", "BUCKETIZE", "FLOOR", "CEIL", "ROUND", "FLOOR_DIV", "FLOOR_MOD"}

_UNEVEN = 4.0
"""Two bits of int8 that rounding would lose."""


def uneven_inputs(graph: Graph) -> set[int]:
    """Return the ops at the inputs that bring features of uneven ranges to a common one.

    One int8 step of the input is then many steps of the small features after a Normalization or
    BatchNormalization, or after a Dense into which the converter folds it. In float these ops cost
    next to nothing.

    Args:
        graph: A float graph whose tensors have ranges.

    Returns:
        The tensors that these ops compute.
    """
    found: set[int] = set()
    coarse: dict[int, float] = {}
    chains: dict[int, set[int]] = {}
    for index in map(int, graph.tables.inputs):
        if (step := step_of(graph, index)) is not None:
            coarse[index], chains[index] = step, set()
    for node in graph.tables.operators:
        op, out = graph.op(node), int(node.outputs[0])
        inputs = [int(tensor) for tensor in node.inputs if is_float(graph, int(tensor))]
        moving = [tensor for tensor in inputs if not graph.constant(tensor)]
        step = step_of(graph, out)
        if step is None:
            continue
        if op == "CAST" and not inputs and int(node.inputs[0]) in map(int, graph.tables.inputs):
            coarse[out], chains[out] = step, set()
        if not moving or not all(tensor in coarse for tensor in moving):
            continue
        single = moving == inputs[:1]
        affine = op in _AFFINE and len(inputs) == 2 and single
        if not (affine or op in _PLACING or (op == "FULLY_CONNECTED" and single)):
            continue
        error = max(coarse[tensor] for tensor in moving) * _gain(graph, op, inputs)
        chain = {out}.union(*(chains[tensor] for tensor in moving))
        if error > _UNEVEN * step:
            found |= chain
        if op != "FULLY_CONNECTED":  # which mixes the features
            coarse[out], chains[out] = (step if out in found else error), chain
    return found


def _gain(graph: Graph, op: str, inputs: list[int]) -> float:
    """Return by how much an op with a constant enlarges an error, at most."""
    if op == "FULLY_CONNECTED":  # The errors of the features add up as independent ones do.
        return float(np.linalg.norm(graph.array(inputs[1]), axis=1).max())
    if op not in ("MUL", "DIV"):
        return 1.0
    sizes = np.abs(graph.array(inputs[-1]))
    return float(sizes.max() if op == "MUL" else 1 / max(sizes.min(), 1e-30))


def exact_values(graph: Graph) -> set[int]:
    """Return the ops whose results must not be rounded, because an op that jumps reads them.

    An index that was a float for a while, as in `CategoryEncoding`, would become another index.

    Args:
        graph: A float graph.

    Returns:
        The tensors that these ops compute.
    """
    makers = producers(graph)
    found: set[int] = set()

    def follow(index: int) -> None:
        node = makers.get(index)
        if node is None or index in found or not is_float(graph, index):
            return
        if graph.op(node) in _ELEMENTWISE:
            found.add(index)
            for tensor in node.inputs:
                follow(int(tensor))

    for index in _jumps(graph):
        follow(index)
    return found


def _jumps(graph: Graph) -> Iterator[int]:
    """Yield the float tensors that ops read whose results jump."""
    for node in graph.tables.operators:
        op, out = graph.op(node), int(node.outputs[0])
        if op in _JUMPING and not (op == "CAST" and is_float(graph, out)):
            if is_float(graph, out):
                yield out
            yield from (int(tensor) for tensor in node.inputs if is_float(graph, int(tensor)))
