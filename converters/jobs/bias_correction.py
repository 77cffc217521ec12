"""Biases that make up for rounded kernels. Runs in child processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..passes.graph import Graph
from .ranges import is_float

Array = np.ndarray[Any, np.dtype[Any]]

_CHANNEL = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
"""Axis of the output channel in the kernel of each op."""

_STEPS = 127


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


def correct_biases(graph: Graph, means: Mapping[int, Array]) -> None:
    """Take from each bias what rounding the kernel adds to the outputs on average.

    For the rounding errors d of the weights of a channel that is sum(d * E[x]), where E[x] is the
    mean of each input channel. The edges of padded images are not told from their inside.

    Args:
        graph: A float graph. It is changed.
        means: Mean of each channel (the last axis) of tensors that such ops read, by index.

    Reference:
        Nagel et al. 2019, section 4.2, https://arxiv.org/abs/1906.04721
    """
    for node in readers_of_kernels(graph):
        data, kernel, *biases = (int(tensor) for tensor in node.inputs)
        if data not in means:
            continue
        axis = _CHANNEL[graph.op(node)]
        corrected = -_added(graph.array(kernel).astype(np.float64), means[data], axis)
        like = next((tensor for tensor in biases if tensor >= 0), None)
        if like is not None:
            corrected += graph.array(like)
        bias = graph.add(like, corrected.astype(np.float32))
        if like is None:
            graph[bias].name = bytes(graph[kernel].name) + b"/bias"
        node.inputs = np.array([data, kernel, bias], np.int32)


def _added(kernel: Array, mean: Array, axis: int) -> Array:
    """Return what rounding adds to each output channel on average."""
    others = tuple(a for a in range(kernel.ndim) if a != axis)
    scale = np.abs(kernel).max(others, keepdims=True) / _STEPS
    error = np.rint(kernel / np.where(scale > 0, scale, 1.0)) * scale - kernel
    if axis == 0:
        # A dense kernel may read several positions as one row: all have the mean of theirs.
        inputs = np.tile(mean, kernel.shape[-1] // len(mean))
        return np.asarray((error * inputs).sum(others))
    inputs = np.repeat(mean, kernel.shape[axis] // len(mean))
    return np.asarray(error.sum(others) * inputs)
