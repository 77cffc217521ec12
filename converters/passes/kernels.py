"""The constants that a .tflite file multiplies with or looks up in. Runs in child processes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ..file.scopes import best_first, path_in
from .graph import Graph
from .int4 import NO_FORM, REASONS, VERSIONS

Tree = dict[str, Any]

# Where the kernel stands among the inputs of an op.
_OTHERS = {
    "DEPTHWISE_CONV_2D": 1,
    "TRANSPOSE_CONV": 1,
    "BATCH_MATMUL": 1,
    "CONV_3D": 1,
    "GATHER": 0,
}


@dataclass
class Kernel:
    """A constant that ops multiply with.

    Attributes:
        index: The tensor.
        op: Name of the op that reads it.
        layer: Path of the layer; the name of the tensor if the layer is not known.
        nodes: The ops that read it.
        why: Why it stays in 8 bits; "" if it need not.
    """

    index: int
    op: str
    layer: str
    nodes: list[Any]
    why: str = ""


def find_kernels(graph: Graph, tree: Tree, kind: str = "FLOAT32") -> list[Kernel]:
    """Find the kernels of a graph, in the order in which they are used.

    Args:
        graph: The main graph.
        tree: The layers of the model, as `layer_tree` returns them.
        kind: Type of the kernels. Defaults to "FLOAT32".

    Returns:
        The kernels, those without a form of 4 bits included.
    """
    found: dict[int, Kernel] = {}
    for node in graph.tables.operators:
        op = graph.op(node)
        place = 1 if op in VERSIONS else _OTHERS.get(op, -1)
        if place < 0 or len(node.inputs) <= place:
            continue
        index = int(node.inputs[place])
        if (
            index in found
            or graph[index].type != getattr(schema.TensorType, kind)
            or not graph.constant(index)
        ):
            continue
        nodes = [reader for reader, _ in graph.readers(index)]
        name = layer_of(graph, node, index, tree) or graph.name(index)
        found[index] = Kernel(index, op, name, nodes, _obstacle(graph, op, index))
    return list(found.values())


def layer_of(graph: Graph, node: Any, kernel: int, tree: Tree) -> str | None:
    """Return the path of the layer that an op comes from; None if it is not known.

    Args:
        graph: The graph.
        node: An op that multiplies.
        kernel: Its kernel. The other inputs may have the names of other layers.
        tree: The layers of the model, as `layer_tree` returns them.

    Returns:
        The path below the model.
    """
    for index in (*map(int, node.outputs), kernel):
        name = best_first(graph.name(index))
        path = path_in(tree, lambda layers: layers, name)
        if path is not None:
            return path
    return None


def belongs(layer: str, paths: Iterable[str]) -> bool:
    """Return whether a layer of a file is one of some layers.

    A layer that holds another one computes with its kernel, as a quantization-aware layer does.

    >>> belongs("quantized_conv", ["quantized_conv/conv"]), belongs("conv", ["conv_1"])
    (True, False)

    Args:
        layer: Path of a layer in whose scope an op was traced.
        paths: Paths of layers that own a kernel.

    Returns:
        True if one is the layer, or lies inside it.
    """
    return any(path == layer or path.startswith(f"{layer}/") for path in paths)


def _obstacle(graph: Graph, op: str, index: int) -> str:
    if op not in VERSIONS:
        return REASONS.get(op, NO_FORM)
    readers = [(node, graph.op(node), place) for node, place in graph.readers(index)]
    others = {name for _, name, place in readers if place != 1 or name not in VERSIONS}
    if others:
        return f"{' and '.join(sorted(others))} reads it, too"
    if not np.isfinite(graph.array(index)).all():
        return "it holds NaN or infinity"
    if op == "CONV_2D":
        channels = {int(graph[int(node.inputs[0])].shape[-1]) for node, *_ in readers}
        if channels != {int(graph[index].shape[-1])}:
            return "a grouped convolution of 4 bits is not supported"
    return ""
