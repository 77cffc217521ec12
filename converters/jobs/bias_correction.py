"""Biases that make up for rounded kernels. Runs in child processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..passes.flatbuffer import pack, unpack
from ..passes.graph import Graph, graphs
from ..passes.rounding import largest_scales, nearest
from .ranges import is_float

Array = np.ndarray[Any, np.dtype[Any]]

_CHANNEL = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
"""Axis of the output channel in the kernel of each op."""


class Uncorrected(NamedTuple):
    """An op whose bias is to be corrected.

    Attributes:
        kernel: Its kernel as it was trained.
        mean: Mean of each channel (the last axis) of what it reads.
    """

    kernel: Array
    mean: Array


def readers_of_kernels(graph: Graph) -> list[Any]:
    """Return the ops with a constant float kernel, and with a constant bias or none."""
    return [
        node
        for node in graph.tables.operators
        if graph.op(node) in _CHANNEL
        and all(
            is_float(graph, int(i)) and graph.constant(int(i)) for i in node.inputs[1:3] if i >= 0
        )
    ]


def uncorrected(graph: Graph, means: Mapping[int, Array]) -> dict[int, Uncorrected]:
    """Return the ops whose biases can be corrected, by the tensor that they compute.

    Args:
        graph: A float graph.
        means: Mean of each channel (the last axis) of the tensors that such ops read.
    """
    return {
        int(node.outputs[0]): Uncorrected(
            graph.array(int(node.inputs[1])).astype(np.float64), means[int(node.inputs[0])]
        )
        for node in readers_of_kernels(graph)
        if int(node.inputs[0]) in means
    }


def corrected(content: bytes, ops: Mapping[int, Uncorrected]) -> bytes:
    """Take from each bias what rounding the kernel adds to the outputs on average.

    For the rounding errors d of the weights of a channel that is sum(d * E[x]), where E[x] is the
    mean of each input channel. The edges of padded images are not told from their inside.

    Args:
        content: A float file. A kernel that differs from what it was is stored as it is, in fewer
            bits; the others are rounded to int8.
        ops: The ops and their kernels as they were, by the tensor that an op computes.

    Returns:
        The file.

    Reference:
        Nagel et al. 2019, section 4.2, https://arxiv.org/abs/1906.04721
    """
    if not ops:
        return content
    model = unpack(content)
    graph = graphs(model)[0]
    for node in readers_of_kernels(graph):
        before = ops.get(int(node.outputs[0]))
        if before is None:
            continue
        data, kernel, *biases = (int(tensor) for tensor in node.inputs)
        added = _added(graph.array(kernel), before, _CHANNEL[graph.op(node)])
        like = next((tensor for tensor in biases if tensor >= 0), None)
        wanted = -added if like is None else graph.array(like) - added
        if like is not None and len(graph.readers(like)) == 1:
            graph.set_array(like, wanted.astype(np.float32))
            continue
        bias = graph.add(like, wanted.astype(np.float32))
        if like is None:
            graph[bias].name = bytes(graph[kernel].name) + b"/bias"
        node.inputs = np.array([data, kernel, bias], np.int32)
    return pack(model)


def _added(kernel: Array, before: Uncorrected, axis: int) -> Array:
    """Return what rounding adds to each output channel on average."""
    others = tuple(a for a in range(kernel.ndim) if a != axis)
    stored, mean = kernel.astype(np.float64), before.mean
    if np.array_equal(stored, before.kernel):
        stored = _rounded(kernel, axis)
    error = stored - before.kernel
    if axis == 0:
        # A dense kernel may read several positions as one row: all have the mean of theirs.
        inputs = np.tile(mean, kernel.shape[-1] // len(mean))
        return np.asarray((error * inputs).sum(others))
    inputs = np.repeat(mean, kernel.shape[axis] // len(mean))
    return np.asarray(error.sum(others) * inputs)


def _rounded(kernel: Array, axis: int) -> Array:
    """Return a kernel as int8 holds it, with a step for each output channel."""
    channels = np.moveaxis(kernel, axis, 0)
    rows = channels.reshape(len(channels), -1)
    steps = largest_scales(rows, 8)
    real = nearest(rows, steps, 8) * steps.astype(np.float64)[:, None]
    return np.moveaxis(real.reshape(channels.shape), 0, axis)
