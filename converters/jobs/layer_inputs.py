"""What enters the layers of a float .tflite file, as sums of products. In child processes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ..passes.graph import Graph
from .tensor_values import Samples, runs

Array = np.ndarray[Any, np.dtype[Any]]

_LEAST = 256
"""Samples at least: the positions of one image are alike."""

_TIMES = 64
"""Rows for each column of the Hessian: with more, it hardly changes."""


def hessian(graph: Graph, nodes: list[Any], samples: Samples) -> Array:
    """Return XᵀX, with X the inputs of ops that share a kernel: a row for each sum of products.

    The ops before them compute with the kernels that the file holds now.

    Args:
        graph: The main graph of a float file.
        nodes: CONV_2D or FULLY_CONNECTED ops.
        samples: Samples for the inputs of the file.

    Returns:
        Square matrix of float64.
    """
    shape = graph[int(nodes[0].inputs[1])].shape
    columns = int(np.prod(shape[1:]))
    total = np.zeros((columns, columns))
    some = _enough(samples, _TIMES * columns, graph[int(nodes[0].outputs[0])].shape)
    share = -(-_TIMES * columns // (some.size * len(nodes)))
    rng = np.random.default_rng(0)
    for count, values in runs(graph, [int(node.inputs[0]) for node in nodes], some):
        for node in nodes:
            rows = _rows(graph, node, values(int(node.inputs[0])), shape)
            places = np.arange(rows.shape[0] * rows.shape[1] * rows.shape[2])
            if len(places) > share * count:
                places = rng.choice(places, share * count, replace=False)
            chosen = rows[np.unravel_index(places, rows.shape[:3])]
            wide = chosen.reshape(-1, columns).astype(np.float64)
            total += wide.T @ wide
    return total


def _enough(samples: Samples, rows: int, shape: Array) -> Samples:
    """Return evenly spaced batches: enough for a number of rows, and at least `_LEAST` samples."""
    size = samples.batch_size
    wanted = max(_LEAST, -(-rows // max(1, int(np.prod(shape[1:-1]))))) // size
    batches = samples.size // size
    if wanted >= batches:
        return samples
    chosen = np.linspace(0, batches - 1, max(1, wanted)).round().astype(int)
    places = (chosen[:, None] * size + np.arange(size)).reshape(-1)
    return Samples({name: array[places] for name, array in samples.arrays.items()}, size)


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
