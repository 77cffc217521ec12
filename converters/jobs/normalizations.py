"""Normalizations that int8 would ruin stay in float. Runs in child processes.

In a pretrained transformer, a few channels of the sums that a LayerNormalization reads are a
hundred times as large as the others, and so are some of those that it gives. With one scale for all
channels, the others keep two or three bits. In float, the sums and the normalization cost next to
nothing, and each channel that a dense layer reads can be brought to one size first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ..equalization.formula import largest_by_unit, relative_weights, smooth_factors
from ..passes.graph import Graph
from .ranges import is_float, producers
from .tensor_values import Samples, runs

Array = np.ndarray[Any, np.dtype[Any]]

# Ops that a normalization is made of, by the converter.
_STEPS = {"ADD", "DIV", "MEAN", "MUL", "NEG", "RSQRT", "SQRT", "SQUARE", "SQUARED_DIFFERENCE",
          "SUB"}  # fmt: skip
_SUMS = {"ADD", "SUB"}

_ALPHA = 0.85
"""How much of the unevenness moves into the weights. Of MiniLM-L6, 0.5 keeps a cosine of 0.953,
0.75 one of 0.972, 0.85 one of 0.977, and 1.0 one of 0.980; but 1.0 spares no weights."""


def normalizations(graph: Graph) -> set[int]:
    """Return what normalizations compute, and the sums that they read.

    A normalization is what is computed from one tensor alone by means, products and sums, on the
    way to the root of a mean square, or to its reciprocal, and from it.

    Args:
        graph: A float graph.

    Returns:
        The tensors.
    """
    makers = producers(graph)
    found: set[int] = set()
    for node in graph.tables.operators:
        if graph.op(node) in ("RSQRT", "SQRT"):
            root = int(node.outputs[0])
            source = _source(graph, makers, root)
            if source is not None:
                found |= _between(graph, source, root)
                found |= _sums(graph, makers, source)
    return found


def even_out(graph: Graph, tensors: set[int], samples: Samples) -> set[int]:
    """Bring the channels that dense layers read from float tensors to one size.

    They are multiplied by a factor each, in float, and the kernels are divided by it.

    Args:
        graph: A float graph. It is changed.
        tensors: Those that stay in float.
        samples: Samples for its inputs.

    Returns:
        The products, which stay in float as well.
    """
    readers: dict[int, list[Any]] = {}
    for node in graph.tables.operators:
        if graph.op(node) == "FULLY_CONNECTED" and graph.constant(int(node.inputs[1])):
            readers.setdefault(int(node.inputs[0]), []).append(node)
    readers = {index: nodes for index, nodes in readers.items() if index in tensors}
    largest = {index: np.zeros(graph[index].shape[-1]) for index in readers}
    for run in runs(graph, list(readers), samples):
        for index, size in largest.items():
            values = np.abs(run.values(index))
            np.maximum(size, values.reshape(-1, values.shape[-1]).max(0), out=size)
    return {_scale(graph, index, nodes, largest[index]) for index, nodes in readers.items()}


def _source(graph: Graph, makers: dict[int, Any], root: int) -> int | None:
    """Return the tensor whose mean square a root is taken of; None if it is another."""
    node = makers[root]
    while graph.op(node) in ("RSQRT", "SQRT", "ADD"):
        moving = [int(i) for i in node.inputs if not graph.constant(int(i))]
        if len(moving) != 1 or moving[0] not in makers:
            return None
        node = makers[moving[0]]
    if graph.op(node) != "MEAN" or int(node.inputs[0]) not in makers:
        return None
    square = makers[int(node.inputs[0])]
    first, last = int(square.inputs[0]), int(square.inputs[-1])
    squared = graph.op(square) == "SQUARE" or (graph.op(square) == "MUL" and first == last)
    return first if squared or graph.op(square) == "SQUARED_DIFFERENCE" else None


def _between(graph: Graph, source: int, root: int) -> set[int]:
    """Return what is computed from a tensor alone, on the way to a root or from it."""
    alone: dict[int, list[int]] = {}
    after: set[int] = set()
    for node in graph.tables.operators:
        out = int(node.outputs[0])
        moving = [int(i) for i in node.inputs if not graph.constant(int(i))]
        inside = moving and all(i == source or i in alone for i in moving)
        if graph.op(node) in _STEPS and is_float(graph, out) and inside:
            alone[out] = moving
            if out == root or after.intersection(moving):
                after.add(out)
    return after | _ancestors(alone, after)


def _ancestors(inputs: dict[int, list[int]], tensors: set[int]) -> set[int]:
    found: set[int] = set()
    ahead = [i for index in tensors for i in inputs[index]]
    while ahead:
        index = ahead.pop()
        if index in inputs and index not in found:
            found.add(index)
            ahead += inputs[index]
    return found


def _sums(graph: Graph, makers: dict[int, Any], tensor: int) -> set[int]:
    """Return a tensor if it is a sum, and the sums that it is made of."""
    found: set[int] = set()
    ahead = [tensor]
    while ahead:
        index = ahead.pop()
        node = makers.get(index)
        if node is not None and graph.op(node) in _SUMS and index not in found:
            found.add(index)
            ahead += map(int, node.inputs)
    return found


def _scale(graph: Graph, index: int, nodes: list[Any], largest: Array) -> int:
    """Multiply the channels of a tensor for some of its readers, whose kernels are divided."""
    size = len(largest)
    weights = np.zeros(size)
    for node in nodes:
        shares = relative_weights(graph.array(int(node.inputs[1])), (0,))
        weights = np.maximum(weights, largest_by_unit(np.arange(size), shares, size))
    factors = smooth_factors(largest, weights, _ALPHA).astype(np.float32)
    name = bytes(graph[index].name or b"")
    constant = graph.add(None, factors)
    graph[constant].name = name + b"/factors"
    even = graph.add(index)
    graph[even].name = name + b"/even"
    first = min(nodes, key=graph.tables.operators.index)
    product = graph.insert(first, "MUL", [index, constant], even, 1)
    product.builtinOptionsType = schema.BuiltinOptions.MulOptions
    product.builtinOptions = schema.MulOptionsT()
    for node in nodes:
        kernel = int(node.inputs[1])
        graph.redirect(node, 0, even)
        graph.redirect(node, 1, graph.add(kernel, graph.array(kernel) / factors))
    return even
