"""Weights of 4 bits in a .tflite file: two to a byte. Runs in child processes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .graph import Graph
from .runtime_note import at_least

Array = np.ndarray[Any, np.dtype[Any]]

VERSIONS = {"CONV_2D": 7, "FULLY_CONNECTED": 10}
"""Ops that compute with int4 kernels and int8 activations on XNNPACK, TFLite's own kernels and the
reference kernels -> the version of the op that does."""

RELEASE = "2.11.0"
"""The first release of the runtime that knows these versions."""

REASONS = {
    "DEPTHWISE_CONV_2D": "the reference kernels have no depthwise convolution of 4 bits, and "
    "others take several times as long as int8",
    "TRANSPOSE_CONV": "the runtime has no transposed convolution of 4 bits",
}
"""Why other ops keep int8 kernels."""

NO_FORM = "the runtime has no such op with weights of 4 bits"

_BIAS = 2
_LIMIT = 7

_HALF = 0.51
"""The nearest int8 is half a step off at most; whether 63.5 becomes 63 or 64 does not matter."""


class Integers(NamedTuple):
    """A kernel in 4 bits.

    Attributes:
        values: int8 from -7 to 7, in the shape of the kernel in the file.
        scales: Step of each output channel, float32.
    """

    values: Array
    scales: Array


def packed(values: Array) -> Array:
    """Return integers of 4 bits, two to a byte, the first in the lower half.

    >>> packed(np.int8([1, -1, 7])).tolist()
    [241, 7]

    Args:
        values: int8 from -8 to 7.

    Returns:
        Vector of uint8.
    """
    flat = values.reshape(-1).astype(np.int8).view(np.uint8) & 15
    flat = np.append(flat, np.zeros(flat.size % 2, np.uint8))
    return flat[0::2] | (flat[1::2] << 4)


def unpacked(data: Array, size: int) -> Array:
    """Return the integers that `packed` stored.

    >>> unpacked(packed(np.int8([1, -1, 7])), 3).tolist()
    [1, -1, 7]

    Args:
        data: Bytes of the buffer.
        size: Number of integers.

    Returns:
        Vector of int8.
    """
    halves = np.stack([data & 15, data >> 4], axis=-1).reshape(-1)[:size]
    return ((halves ^ 8).astype(np.int8) - np.int8(8)).astype(np.int8)


def set_int4(graph: Graph, index: int, found: Integers, axis: int = 0) -> None:
    """Store integers of 4 bits for a tensor.

    Args:
        graph: The graph, which is changed.
        index: The tensor.
        found: Its integers, and the step of each index along the axis.
        axis: That axis. Defaults to the first one.
    """
    tensor = graph[index]
    tensor.type = schema.TensorType.INT4
    tensor.shape = np.array(found.values.shape, np.int32)
    tensor.shapeSignature = tensor.sparsity = None
    tensor.buffer = len(graph.model.buffers)
    graph.model.buffers.append(schema.BufferT(data=packed(found.values)))
    tensor.quantization = quantization(found.scales, axis)


def quantization(scales: Array, axis: int = 0) -> Any:
    """Return the parameters of symmetric integers.

    Args:
        scales: Step of each index along the axis.
        axis: That axis. Defaults to the first one.

    Returns:
        A `QuantizationParametersT`.
    """
    return schema.QuantizationParametersT(
        scale=scales.astype(np.float32),
        zeroPoint=np.zeros(len(scales), np.int64),  # the runtime wants as many as scales
        quantizedDimension=axis,
    )


def is_same(graph: Graph, index: int, found: Integers) -> bool:
    """Return whether an int8 kernel holds the numbers that integers of 4 bits stand for.

    The quantizer makes the largest weight of each channel 127.

    Args:
        graph: The graph.
        index: The kernel.
        found: The integers that it should hold.

    Returns:
        True if every one is the nearest int8 of its number.
    """
    tensor = graph[index]
    if tensor.type != schema.TensorType.INT8 or tuple(tensor.shape) != found.values.shape:
        return False
    rows = found.values.reshape(len(found.values), -1).astype(np.float64)
    largest = np.abs(rows).max(axis=1)
    wanted = rows * (127 / np.maximum(largest, 1))[:, None]
    scales = np.asarray(tensor.quantization.scale)
    if len(scales) != len(rows):
        return False
    alike = np.abs(graph.array(index).reshape(rows.shape) - wanted).max() <= _HALF
    used = largest > 0
    return bool(alike and np.allclose(scales[used], (largest * found.scales / 127)[used], 1e-4, 0))


def on_grid(graph: Graph, index: int) -> Integers | None:
    """Return the integers of 4 bits that an int8 kernel holds; None if it holds others.

    Args:
        graph: The graph.
        index: The kernel, which the quantizer made of a float one: 127 is the largest weight of
            each row.

    Returns:
        The integers, if there are 15 of them, 7 for the largest.
    """
    rows = graph.array(index)
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    scales = np.asarray(graph[index].quantization.scale, np.float64)
    values = np.rint(flat * (_LIMIT / 127))
    largest = np.abs(flat).max(axis=1)
    if (
        len(scales) != len(rows)
        or np.abs(flat - values * (127 / _LIMIT)).max() > _HALF
        or not np.isin(largest, (0, 127)).all()
    ):
        return None
    steps = (scales * 127 / _LIMIT).astype(np.float32)
    return Integers(values.astype(np.int8).reshape(rows.shape), steps)


def use(graph: Graph, index: int, found: Integers) -> None:
    """Store an int8 kernel in 4 bits, and the biases that go with it in other steps.

    Args:
        graph: The graph, which is changed.
        index: The kernel, which ops of `VERSIONS` with int8 activations read and no others.
        found: The integers.
    """
    at_least(graph.model, RELEASE)
    for node, _ in graph.readers(index):
        graph.code(graph.op(node), VERSIONS[graph.op(node)])
        if len(node.inputs) > _BIAS and node.inputs[_BIAS] >= 0:
            step = float(graph[int(node.inputs[0])].quantization.scale[0])
            _rescale(graph, node, step * found.scales.astype(np.float64))
    set_int4(graph, index, found)


def _rescale(graph: Graph, node: Any, steps: Array) -> None:
    """Store the bias of an op in other steps."""
    bias = int(node.inputs[_BIAS])
    values = graph.array(bias)
    real = values * np.asarray(graph[bias].quantization.scale, np.float64)
    ends = np.iinfo(values.dtype)
    integers = np.clip(np.rint(real / steps), ends.min, ends.max).astype(values.dtype)
    if len(graph.readers(bias)) > 1:
        graph.redirect(node, _BIAS, graph.add(bias, integers))
    else:
        graph.set_array(bias, integers)
    graph[int(node.inputs[_BIAS])].quantization = quantization(steps)
