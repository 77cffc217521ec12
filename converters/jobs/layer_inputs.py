"""What enters the layers of a float .tflite file, as sums of products. In child processes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from ..passes.flatbuffer import pack
from ..passes.graph import Graph
from .ranges import producers

Array = np.ndarray[Any, np.dtype[Any]]
Batches = Callable[[], Iterable[dict[str, Any]]]

_ROWS = 16
"""Samples of a run, where the batch is free."""

_LEAST = 256
"""Samples at least: the positions of one image are alike."""

_TIMES = 64
"""Rows for each column of the Hessian: with more, it hardly changes."""


def hessian(graph: Graph, nodes: list[Any], batches: Batches) -> Array:
    """Return XᵀX, with X the inputs of ops that share a kernel: a row for each sum of products.

    The ops before them compute with the kernels that the file holds now.

    Args:
        graph: The main graph of a float file.
        nodes: CONV_2D or FULLY_CONNECTED ops.
        batches: Returns samples by input name, run by run.

    Returns:
        Square matrix of float64.
    """
    shape = graph[int(nodes[0].inputs[1])].shape
    columns = int(np.prod(shape[1:]))
    total = np.zeros((columns, columns))
    runs = _enough(list(batches()), _TIMES * columns, graph[int(nodes[0].outputs[0])].shape)
    share = -(-_TIMES * columns // (len(runs) * len(nodes)))
    rng = np.random.default_rng(0)
    for count, values in _run(graph, [int(node.inputs[0]) for node in nodes], runs):
        for node, value in zip(nodes, values, strict=True):
            rows = _rows(graph, node, value, shape)
            places = np.arange(rows.shape[0] * rows.shape[1] * rows.shape[2])
            if len(places) > share * count:
                places = rng.choice(places, share * count, replace=False)
            chosen = rows[np.unravel_index(places, rows.shape[:3])]
            wide = chosen.reshape(-1, columns).astype(np.float64)
            total += wide.T @ wide
    return total


def _enough(runs: list[dict[str, Any]], rows: int, shape: Array) -> list[dict[str, Any]]:
    """Return evenly spaced samples: enough for a number of rows, and at least `_LEAST`."""
    wanted = max(_LEAST, -(-rows // max(1, int(np.prod(shape[:-1])))))
    if wanted >= len(runs):
        return runs
    return [runs[i] for i in np.linspace(0, len(runs) - 1, wanted).round().astype(int)]


def _rows(graph: Graph, node: Any, value: Array, shape: Array) -> Array:
    """Return what each output of an op is the sum of; the first three axes run over positions."""
    if graph.op(node) == "FULLY_CONNECTED":
        return value.reshape(1, 1, -1, int(shape[1]))
    options = node.builtinOptions
    strides = options.strideH, options.strideW
    dilations = options.dilationHFactor, options.dilationWFactor
    return patches(value, shape[1:3], strides, dilations, options.padding == schema.Padding.SAME)


def patches(
    images: Array, size: Iterable[int], strides: Iterable[int], dilations: Iterable[int], same: bool
) -> Array:
    """Return the patches of images that a convolution multiplies with its kernel.

    Args:
        images: Array of the shape (samples, height, width, channels).
        size: Height and width of the kernel.
        strides: Steps between patches, down and across.
        dilations: Steps within a patch, down and across.
        same: Whether zeros are added around an image, so that the output is as large, as TensorFlow
            does for the padding "SAME".

    Returns:
        View of the shape (samples, positions down, positions across, height, width, channels).
    """
    padding = [(0, 0)]
    windows = [(int(k) - 1) * int(d) + 1 for k, d in zip(size, dilations, strict=True)]
    for length, window, stride in zip(images.shape[1:3], windows, strides, strict=True):
        missing = max((-(-length // stride) - 1) * stride + window - length, 0) if same else 0
        padding.append((missing // 2, missing - missing // 2))
    padded = np.pad(images, [*padding, (0, 0)])
    views = np.lib.stride_tricks.sliding_window_view(padded, windows, axis=(1, 2))
    (down, across), (step_down, step_across) = strides, dilations
    views = views[:, ::down, ::across, :, ::step_down, ::step_across]
    return views.transpose(0, 1, 2, 4, 5, 3)


def _run(
    graph: Graph, tensors: list[int], runs: list[dict[str, Any]]
) -> Iterator[tuple[int, list[Array]]]:
    """Yield a number of runs and the values of some tensors in them."""
    names = {
        entry.name.decode(): int(entry.tensorIndex)
        for signature in graph.model.signatureDefs[:1]
        for entry in signature.inputs
    }
    interpreter = Interpreter(model_content=_beginning(graph, tensors))
    details = {d["index"]: d for d in interpreter.get_input_details()}
    together = _ROWS if all(_free(d) for d in details.values()) else 1
    for start in range(0, len(runs), together):
        part = runs[start : start + together]
        feed = {name: np.concatenate([run[name] for run in part]) for name in part[0]}
        for name, value in feed.items():
            if names[name] in details and list(details[names[name]]["shape"]) != list(value.shape):
                interpreter.resize_tensor_input(names[name], value.shape)
        interpreter.allocate_tensors()
        for name, value in feed.items():
            if names[name] in details:
                interpreter.set_tensor(names[name], value)
        interpreter.invoke()
        yield len(part), [interpreter.get_tensor(index) for index in tensors]


def _free(details: dict[str, Any]) -> bool:
    return len(details["shape_signature"]) > 0 and int(details["shape_signature"][0]) < 0


def _beginning(graph: Graph, tensors: list[int]) -> bytes:
    """Return a file that computes some tensors, and holds no op that they do not need."""
    makers = producers(graph)
    needed: set[int] = set()
    ahead = list(tensors)
    while ahead:
        node = makers.get(ahead.pop())
        if node is not None and id(node) not in needed:
            needed.add(id(node))
            ahead += [int(index) for index in node.inputs]
    tables, model = graph.tables, graph.model
    kept = copy.copy(tables)
    kept.operators = [node for node in tables.operators if id(node) in needed]
    kept.outputs = np.array(list(dict.fromkeys(tensors)), np.int32)
    part = copy.copy(model)
    part.subgraphs = [kept, *model.subgraphs[1:]]
    part.signatureDefs = part.metadata = None
    return pack(copy.deepcopy(part))
