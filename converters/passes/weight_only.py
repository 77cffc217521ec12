"""Weights in 8 or 4 bits, activations in float: for language models and tables of embeddings."""

from __future__ import annotations

import collections
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ..jobs.layer_inputs import hessian
from ..jobs.observed import why_unobservable
from ..jobs.tensor_values import Samples, load
from .base import Refused, Rewritten
from .flatbuffer import pack, unpack
from .gptq import by_inputs
from .graph import Graph, graphs
from .int4 import Integers
from .kernels import Kernel, find_kernels
from .tables import store_table
from .weight_forms import VERSIONS, Form, new_name, note, real_values, reshape, rounded, store

Array = np.ndarray[Any, np.dtype[Any]]
Json = dict[str, Any]

_LEAST = 1024
"""Elements of a constant; the scales and names of a smaller one outweigh what is saved."""

_SAME = 1e-4
"""As a share of the largest output: float32 sums in another order."""


def rewrite(
    content: bytes,
    *,
    default: Json | None,
    layers: Json,
    tree: Json,
    samples: Json | None = None,
) -> Rewritten:
    """Store the weights of dense layers, products with a constant, and tables in integers.

    Args:
        content: A float32 file.
        default: The fields of `Form` for all weights; None leaves them in float32.
        layers: Path of a layer -> the fields of another `Form` for its weights, or None.
        tree: The layers of the model, as `layer_tree` returns them.
        samples: Samples for its inputs, as `load` takes them. Defaults to None, for rounding to the
            nearest alone.

    Returns:
        The file. Its report maps layers that stay in float32 to the reason. Where activations are
        float32, its outputs are compared with those of a float file with the rounded weights.

    Raises:
        Refused: It is no float32 file, or what enters its layers is out of reach.
    """
    model, reference = unpack(content), unpack(content)
    seen = None if samples is None else load(samples)
    kept: dict[str, str] = {}
    exact = True
    for graph, plain in zip(graphs(model), graphs(reference), strict=True):
        _check_float(graph)
        _split(graph)
        _split(plain)
        kernels = find_kernels(graph, tree)
        users = collections.Counter(graph[kernel.index].buffer for kernel in kernels)
        tied = {kernel.index for kernel in kernels if users[graph[kernel.index].buffer] > 1}
        for kernel in kernels:
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
            if kernel.index in tied:
                form = replace(form, rounding="nearest")  # the integers of all are stored once
            by_samples = form.rounding == "gptq" and kernel.op == "FULLY_CONNECTED"
            inputs = [_inputs(plain, kernel, seen)] if by_samples else []
            plain.set_array(kernel.index, _FORMS[kernel.op](graph, kernel, form, *inputs))
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


def _inputs(plain: Graph, kernel: Kernel, samples: Samples | None) -> Array:
    """Return XᵀX of what enters the layers of a kernel, behind those that are rounded already."""
    if why := why_unobservable(plain.model):
        raise Refused(f"cannot be rounded by 'gptq', as {why}")
    assert samples is not None  # the precision demands them
    nodes = [node for node, _ in plain.readers(kernel.index)]
    return hessian(plain, nodes, samples)


def _dense(graph: Graph, kernel: Kernel, form: Form, inputs: Array | None = None) -> Array:
    """Store the kernel of FULLY_CONNECTED ops; return what it stands for."""
    array = graph.array(kernel.index)
    width = form.block or array.shape[1]
    if inputs is None:
        found = rounded(array.reshape(-1, width), form)
    else:
        found = by_inputs(array, inputs, form.bits, form.block)
        found = found._replace(values=found.values.reshape(-1, width))
    if form.activations == "int8":
        store(graph, kernel.index, found, form.bits)
        for node in kernel.nodes:
            node.builtinOptions.asymmetricQuantizeInputs = True
        version = VERSIONS[form.bits]["FULLY_CONNECTED"]
        graph.code("FULLY_CONNECTED", version)
        note(graph, "FULLY_CONNECTED", version)
    else:
        _unpack(graph, kernel, found, form, array.shape)
    return real_values(found).reshape(array.shape)


def _product(graph: Graph, kernel: Kernel, form: Form) -> Array:
    """Store the constant of BATCH_MATMUL ops, with a scale for each column of the product."""
    array = graph.array(kernel.index)
    options = kernel.nodes[0].builtinOptions
    axis = array.ndim - (2 if options is not None and options.adjY else 1)
    moved = np.moveaxis(array, axis, 0)
    found = rounded(moved.reshape(len(moved), -1), form)
    values = np.moveaxis(found.values.reshape(moved.shape), 0, axis)
    real = np.moveaxis(real_values(found).reshape(moved.shape), 0, axis)
    _unpack(graph, kernel, Integers(values, found.scales), form, array.shape, axis)
    return np.ascontiguousarray(real)


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
    graph[integers].name = new_name(graph, kernel.index, b"integers")
    store(graph, integers, found, form.bits, axis)
    version = VERSIONS[form.bits]["DEQUANTIZE"]
    note(graph, "DEQUANTIZE", version)
    if found.values.shape == shape:
        graph.compute(kernel.index, "DEQUANTIZE", integers, version)
        return
    first, _ = graph.readers(kernel.index)[0]
    rows = graph.add(kernel.index)
    graph.set_array(rows, None)
    graph[rows].shape = np.array(found.values.shape, np.int32)
    graph[rows].name = new_name(graph, kernel.index, b"rows")
    graph.insert(first, "DEQUANTIZE", [integers], rows, version)
    graph.set_array(kernel.index, None)
    reshape(graph, first, rows, kernel.index)


_FORMS: dict[str, Callable[..., Array]] = {
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _product,
    "GATHER": store_table,
}
