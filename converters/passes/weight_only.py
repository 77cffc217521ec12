"""Weights in 8 or 4 bits, activations in float: for language models and tables of embeddings."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .base import Refused, Rewritten
from .flatbuffer import pack, unpack
from .graph import Graph, graphs
from .int4 import Integers, quantization, set_int4
from .kernels import Kernel, find_kernels
from .rounding import largest_scales, nearest
from .runtime_note import at_least

Array = np.ndarray[Any, np.dtype[Any]]
Json = dict[str, Any]

_LEAST = 1024
"""Elements of a constant; the scales and names of a smaller one outweigh what is saved."""

_SAME = 1e-4
"""As a share of the largest output: float32 sums in another order."""


@dataclass(frozen=True)
class Form:
    """What weights are stored and computed in.

    Attributes:
        bits: 8 or 4.
        block: Weights that share a scale, along the sums of products; None for all of a row.
        activations: "int8" for sums of integers, where the op has that, or "float32".
    """

    bits: int
    block: int | None = None
    activations: str = "float32"


# Form of the weights -> versions of the ops that read them, and the oldest release with all.
_VERSIONS = {
    8: {"FULLY_CONNECTED": 12, "DEQUANTIZE": 5, "GATHER": 2, "CAST": 1},
    4: {"FULLY_CONNECTED": 12, "DEQUANTIZE": 6, "GATHER": 7, "CAST": 6},
}
_RELEASES = {("FULLY_CONNECTED", 12): "2.17.0", ("DEQUANTIZE", 5): "2.7.0",
             ("DEQUANTIZE", 6): "2.18.0", ("GATHER", 7): "2.15.0"}  # fmt: skip


def rewrite(content: bytes, *, default: Json | None, layers: Json, tree: Json) -> Rewritten:
    """Store the weights of dense layers, products with a constant, and tables in integers.

    Args:
        content: A float32 file.
        default: The fields of `Form` for all weights; None leaves them in float32.
        layers: Path of a layer -> the fields of another `Form` for its weights, or None.
        tree: The layers of the model, as `layer_tree` returns them.

    Returns:
        The file. Its report maps layers that stay in float32 to the reason. Where activations are
        float32, its outputs are compared with those of a float file with the rounded weights.

    Raises:
        Refused: It is no float32 file.
    """
    model, reference = unpack(content), unpack(content)
    kept: dict[str, str] = {}
    exact = True
    for graph, plain in zip(graphs(model), graphs(reference), strict=True):
        _check_float(graph)
        _split(graph)
        _split(plain)
        for kernel in find_kernels(graph, tree):
            fields = layers.get(kernel.layer, default)
            if fields is None:
                if kernel.layer in layers or default is not None:
                    kept[kernel.layer] = "asked for"
                continue
            form = Form(**fields)
            why = _obstacle(graph, kernel, form)
            if why:
                kept[kernel.layer] = why
                continue
            exact = exact and (form.activations == "float32" or kernel.op == "GATHER")
            rounded = _FORMS[kernel.op](graph, kernel, form)
            plain.set_array(kernel.index, rounded)
    if not exact:
        return Rewritten(pack(model), kept, None)
    return Rewritten(pack(model), kept, _SAME, pack(reference))


def _check_float(graph: Graph) -> None:
    if any(
        t.type in (schema.TensorType.INT8, schema.TensorType.INT4) for t in graph.tables.tensors
    ):
        raise Refused("is quantized already: its weights are rounded from a float32 file")


def _split(graph: Graph) -> None:
    """Give each kind of op that reads a constant a tensor of its own, with the same values.

    Tied weights are a table for one op and a kernel for another one, each with a form of its own.
    The integers are equal, and equal buffers are stored once.
    """
    for index in range(len(graph.tables.tensors)):
        if not graph.constant(index):
            continue
        own: dict[str, int] = {}
        for node, place in graph.readers(index):
            op = graph.op(node)
            if own.setdefault(op, index if not own else -1) < 0:
                own[op] = graph.add(index)
                graph[own[op]].buffer = graph[index].buffer
            graph.redirect(node, place, own[op])


def _obstacle(graph: Graph, kernel: Kernel, form: Form) -> str:
    """Say why a constant stays in float32; "" if it need not."""
    array = graph.array(kernel.index)
    if kernel.op not in _FORMS:
        return "float32 weights of this op are not stored in integers: use DynamicInt8() or Int8()"
    if array.size < _LEAST:
        return f"it has fewer than {_LEAST} weights"
    if not np.isfinite(array).all():
        return "it holds NaN or infinity"
    if len({graph.op(node) for node in kernel.nodes}) > 1:
        return "ops of several kinds read it"
    if kernel.op == "GATHER":
        options = [node.builtinOptions for node in kernel.nodes]
        if array.ndim != 2 or any(o.axis or o.batchDims for o in options if o is not None):
            return "it is no table whose rows are looked up"
    if form.block is not None:
        width = array.shape[-1]
        if kernel.op == "BATCH_MATMUL":
            return "products with a constant have no blocks: leave `block` out"
        if width % form.block:
            return f"its rows of {width} weights are no multiple of a block of {form.block}"
        if kernel.op == "GATHER" and any(_free_sizes(graph, n) > 1 for n in kernel.nodes):
            return "blocks need a shape with at most one free size"
    return ""


def _free_sizes(graph: Graph, node: Any) -> int:
    out = graph[int(node.outputs[0])]
    return sum(size < 0 for size in (() if out.shapeSignature is None else out.shapeSignature))


def _dense(graph: Graph, kernel: Kernel, form: Form) -> Array:
    """Store the kernel of FULLY_CONNECTED ops; return what it stands for."""
    array = graph.array(kernel.index)
    rows = array.reshape(-1, form.block or array.shape[1])
    found = _rounded(rows, form)
    if form.activations == "int8":
        _set(graph, kernel.index, found, form.bits)
        for node in kernel.nodes:
            node.builtinOptions.asymmetricQuantizeInputs = True
        version = _VERSIONS[form.bits]["FULLY_CONNECTED"]
        graph.code("FULLY_CONNECTED", version)
        _note(graph, "FULLY_CONNECTED", version)
    else:
        _unpack(graph, kernel, found, form, array.shape)
    return _real(found).reshape(array.shape)


def _product(graph: Graph, kernel: Kernel, form: Form) -> Array:
    """Store the constant of BATCH_MATMUL ops, with a scale for each column of the product."""
    array = graph.array(kernel.index)
    options = kernel.nodes[0].builtinOptions
    axis = array.ndim - (2 if options is not None and options.adjY else 1)
    moved = np.moveaxis(array, axis, 0)
    found = _rounded(moved.reshape(len(moved), -1), form)
    values = np.moveaxis(found.values.reshape(moved.shape), 0, axis)
    real = np.moveaxis(_real(found).reshape(moved.shape), 0, axis)
    _unpack(graph, kernel, Integers(values, found.scales), form, array.shape, axis)
    return np.ascontiguousarray(real)


def _table(graph: Graph, kernel: Kernel, form: Form) -> Array:
    """Look up integers and their scales instead of rows, and multiply them.

    Unlike EMBEDDING_LOOKUP, this takes indices of any shape.
    """
    array = graph.array(kernel.index)
    count, width = array.shape
    block = form.block or width
    found = _rounded(array.reshape(-1, block), form)
    inner = (block,) if form.block is None else (width // block, block)
    shaped = Integers(found.values.reshape(count, *inner), found.scales)
    scales = graph.add(kernel.index, found.scales.reshape(count, *inner[:-1], 1))
    graph[scales].name = _name(graph, kernel.index, b"scales")
    _set(graph, kernel.index, shaped, form.bits)
    graph[kernel.index].quantization = None
    for node in kernel.nodes:
        _look_up(graph, node, kernel.index, scales, inner, form.bits)
    return _real(found).reshape(array.shape)


def _look_up(
    graph: Graph, node: Any, table: int, scales: int, inner: tuple[int, ...], bits: int
) -> None:
    """Replace a GATHER of float rows."""
    ids, out = int(node.inputs[1]), int(node.outputs[0])
    integers = _like(graph, out, inner, b"integers")
    graph[integers].type = graph[table].type
    real = _like(graph, out, inner, b"float")
    steps = _like(graph, out, (*inner[:-1], 1), b"steps")
    product = out if len(inner) == 1 else _like(graph, out, inner, b"blocks")
    versions = _VERSIONS[bits]
    for source, target in ((table, integers), (scales, steps)):
        looked = graph.insert(
            node, "GATHER", [source, ids], target, versions["GATHER"] if source == table else 1
        )
        looked.builtinOptionsType = node.builtinOptionsType
        looked.builtinOptions = copy.deepcopy(node.builtinOptions)
    _note(graph, "GATHER", versions["GATHER"])
    cast = graph.insert(node, "CAST", [integers], real, versions["CAST"])
    cast.builtinOptionsType = schema.BuiltinOptions.CastOptions
    cast.builtinOptions = schema.CastOptionsT(
        inDataType=graph[table].type, outDataType=schema.TensorType.FLOAT32
    )
    scaled = graph.insert(node, "MUL", [real, steps], product, 1)
    scaled.builtinOptionsType = schema.BuiltinOptions.MulOptions
    scaled.builtinOptions = schema.MulOptionsT()
    if product != out:
        _reshape(graph, node, product, out)
    graph.remove(node)


def _like(graph: Graph, out: int, inner: tuple[int, ...], name: bytes) -> int:
    """Add a computed tensor with the shape of another one, but for the last size."""
    index = graph.add(out)
    tensor = graph[index]
    tensor.shape = np.array([*graph[out].shape[:-1], *inner], np.int32)
    if graph[out].shapeSignature is not None:
        tensor.shapeSignature = np.array([*graph[out].shapeSignature[:-1], *inner], np.int32)
    tensor.name = _name(graph, out, name)
    tensor.quantization = None
    return index


def _reshape(graph: Graph, before: Any, source: int, target: int) -> None:
    signature = graph[target].shapeSignature
    sizes = graph[target].shape if signature is None else signature
    shape = graph.add(None, np.array(sizes, np.int32))
    graph[shape].name = _name(graph, target, b"shape")
    node = graph.insert(before, "RESHAPE", [source, shape], target, 1)
    node.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
    node.builtinOptions = schema.ReshapeOptionsT(newShape=np.array(sizes, np.int32))


def _unpack(
    graph: Graph,
    kernel: Kernel,
    found: Integers,
    form: Form,
    shape: tuple[int, ...],
    axis: int = 0,
) -> None:
    """Compute a constant from integers, by a DEQUANTIZE op that all its readers share."""
    integers = graph.add(kernel.index)
    graph[integers].name = _name(graph, kernel.index, b"integers")
    _set(graph, integers, found, form.bits, axis)
    version = _VERSIONS[form.bits]["DEQUANTIZE"]
    _note(graph, "DEQUANTIZE", version)
    if found.values.shape == shape:
        graph.compute(kernel.index, "DEQUANTIZE", integers, version)
        return
    first, _ = graph.readers(kernel.index)[0]
    rows = graph.add(kernel.index)
    graph.set_array(rows, None)
    graph[rows].shape = np.array(found.values.shape, np.int32)
    graph[rows].name = _name(graph, kernel.index, b"rows")
    graph.insert(first, "DEQUANTIZE", [integers], rows, version)
    graph.set_array(kernel.index, None)
    _reshape(graph, first, rows, kernel.index)


def _rounded(rows: Array, form: Form) -> Integers:
    scales = largest_scales(rows, form.bits)
    return Integers(nearest(rows, scales, form.bits), scales)


def _real(found: Integers) -> Array:
    return (found.values * found.scales[:, None]).astype(np.float32)


def _set(graph: Graph, index: int, found: Integers, bits: int, axis: int = 0) -> None:
    """Store integers of 8 or 4 bits for a tensor."""
    if bits == 4:
        set_int4(graph, index, found, axis)
    else:
        graph.set_array(index, found.values)
        graph[index].quantization = quantization(found.scales, axis)


def _name(graph: Graph, index: int, suffix: bytes) -> bytes:
    return bytes(graph[index].name or b"") + b"/" + suffix


def _note(graph: Graph, op: str, version: int) -> None:
    if (op, version) in _RELEASES:
        at_least(graph.model, _RELEASES[op, version])


_FORMS: dict[str, Callable[[Graph, Kernel, Form], Array]] = {
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _product,
    "GATHER": _table,
}
