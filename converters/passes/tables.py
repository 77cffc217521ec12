"""Tables of float rows in integers, of .tflite files. Runs in child processes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .graph import Graph
from .int4 import Integers
from .kernels import Kernel
from .weight_forms import VERSIONS, Form, new_name, note, real_values, reshape, rounded, store

Array = np.ndarray[Any, np.dtype[Any]]


def store_table(graph: Graph, kernel: Kernel, form: Form) -> Array:
    """Look up integers and their scales instead of rows, and multiply them.

    Unlike EMBEDDING_LOOKUP, this takes indices of any shape.
    """
    array = graph.array(kernel.index)
    count, width = array.shape
    block = form.block or width
    found = rounded(array.reshape(-1, block), form)
    inner = (block,) if form.block is None else (width // block, block)
    shaped = Integers(found.values.reshape(count, *inner), found.scales)
    scales = graph.add(kernel.index, found.scales.reshape(count, *inner[:-1], 1))
    graph[scales].name = new_name(graph, kernel.index, b"scales")
    store(graph, kernel.index, shaped, form.bits)
    graph[kernel.index].quantization = None
    for node in kernel.nodes:
        look_up(graph, node, kernel.index, scales, inner, form.bits)
    return real_values(found).reshape(array.shape)


def look_up(
    graph: Graph, node: Any, table: int, scales: int, inner: tuple[int, ...], bits: int
) -> None:
    """Replace a GATHER of float rows."""
    ids, out = int(node.inputs[1]), int(node.outputs[0])
    integers = _like(graph, out, inner, b"integers")
    graph[integers].type = graph[table].type
    real = _like(graph, out, inner, b"float")
    steps = _like(graph, out, (*inner[:-1], 1), b"steps")
    product = out if len(inner) == 1 else _like(graph, out, inner, b"blocks")
    versions = VERSIONS[bits]
    for source, target in ((table, integers), (scales, steps)):
        looked = graph.insert(
            node, "GATHER", [source, ids], target, versions["GATHER"] if source == table else 1
        )
        looked.builtinOptionsType = node.builtinOptionsType
        looked.builtinOptions = copy.deepcopy(node.builtinOptions)
    note(graph, "GATHER", versions["GATHER"])
    cast = graph.insert(node, "CAST", [integers], real, versions["CAST"])
    cast.builtinOptionsType = schema.BuiltinOptions.CastOptions
    cast.builtinOptions = schema.CastOptionsT(
        inDataType=graph[table].type, outDataType=schema.TensorType.FLOAT32
    )
    scaled = graph.insert(node, "MUL", [real, steps], product, 1)
    scaled.builtinOptionsType = schema.BuiltinOptions.MulOptions
    scaled.builtinOptions = schema.MulOptionsT()
    if product != out:
        reshape(graph, node, product, out)
    graph.remove(node)


def _like(graph: Graph, out: int, inner: tuple[int, ...], name: bytes) -> int:
    """Add a computed tensor with the shape of another one, but for the last size."""
    index = graph.add(out)
    tensor = graph[index]
    tensor.shape = np.array([*graph[out].shape[:-1], *inner], np.int32)
    if graph[out].shapeSignature is not None:
        tensor.shapeSignature = np.array([*graph[out].shapeSignature[:-1], *inner], np.int32)
    tensor.name = new_name(graph, out, name)
    tensor.quantization = None
    return index
