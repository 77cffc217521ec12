"""FULLY_CONNECTED with sparse weights that DENSIFY cannot unpack. Runs in child processes.

int8: the runtime does not load FULLY_CONNECTED with weights from DENSIFY. A convolution over an
image of one row computes the same. float32: FULLY_CONNECTED can read sparse weights, and then skips
the zeros.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ..graph import Graph
from .encoding import Plan

# The encoding that has a fast kernel, and the share of zero blocks above which that is faster than
# the dense kernel: see benchmarks/sparse_files.py.
SKIPPING = Plan(axis=1, block=(1, 4))
_ENOUGH_ZEROS = 0.85

# Bytes of the tables of two RESHAPE ops and their outputs; measured.
_TABLES = 300


def should_skip_zeros(graph: Graph, index: int) -> bool:
    """Return whether all readers of a float32 constant are faster when it is sparse."""
    ops = {graph.op(node) for node, _ in graph.readers(index)}
    if ops != {"FULLY_CONNECTED"} or graph[index].type != schema.TensorType.FLOAT32:
        return False
    array = graph.array(index)
    if any(node.builtinOptions.weightsFormat for node, _ in graph.readers(index)):
        return False
    if array.shape[1] % 4:
        return False
    return float(np.mean(~array.reshape(-1, 4).any(axis=1))) >= _ENOUGH_ZEROS


def skip_zeros(graph: Graph) -> None:
    """Declare the version of FULLY_CONNECTED that reads sparse weights."""
    graph.code("FULLY_CONNECTED", version=8)


def int8_readers(graph: Graph, index: int) -> list[Any]:
    """Return the FULLY_CONNECTED ops that multiply with an int8 constant."""
    if graph[index].type != schema.TensorType.INT8:
        return []
    return [node for node, _ in graph.readers(index) if graph.op(node) == "FULLY_CONNECTED"]


def why_dense(graph: Graph, node: Any) -> str:
    """Return why an int8 FULLY_CONNECTED cannot be a convolution; "" if it can."""
    source, target = graph[int(node.inputs[0])], graph[int(node.outputs[0])]
    int8 = source.type == target.type == schema.TensorType.INT8
    if not int8 or node.builtinOptions.weightsFormat:
        return "this kind of FULLY_CONNECTED takes it dense only"
    if sum(size < 0 for size in _sizes(target)) > 1:
        return "FULLY_CONNECTED has an output with several free dimensions"
    return ""


def kernel_shape(outputs: int, inputs: int) -> tuple[int, int, int, int]:
    """Return the shape of the kernel of the convolution.

    It is a row of pixels with at most 256 channels if the inputs divide into such: an index then
    takes one byte.

    >>> kernel_shape(10, 96), kernel_shape(10, 784), kernel_shape(10, 509)
    ((10, 1, 1, 96), (10, 1, 4, 196), (10, 1, 1, 509))
    """
    widths = [w for w in range(1, 33) if inputs % w == 0 and inputs // w <= 256]
    width = widths[0] if widths else 1
    return outputs, 1, width, inputs // width


def extra_bytes(graph: Graph, node: Any) -> int:
    """Return about how many bytes the convolution adds to the file, beside its weights."""
    outputs = int(graph[int(node.inputs[1])].shape[0])
    return _TABLES + (8 * outputs if _bias(node) is None else 0)


def to_convolution(graph: Graph, node: Any, kernel: tuple[int, ...]) -> None:
    """Replace FULLY_CONNECTED by RESHAPE, CONV_2D over one row, RESHAPE."""
    source, weights, target = int(node.inputs[0]), int(node.inputs[1]), int(node.outputs[0])
    outputs, _, width, channels = kernel
    rows = math.prod(graph[target].shape) // outputs
    free = any(size < 0 for size in _sizes(graph[target]))

    def image(like: int, shape: tuple[int, ...]) -> int:
        index = graph.add(like)
        graph[index].shape = np.array([rows, *shape], np.int32)
        graph[index].shapeSignature = np.array([-1, *shape], np.int32) if free else None
        return index

    def reshape(source: int, target: int) -> None:
        """Insert a RESHAPE whose sizes are in its options, not in a constant."""
        inserted = graph.insert(node, "RESHAPE", [source], target, version=1)
        inserted.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
        sizes = np.array(_sizes(graph[target]), np.int32)
        inserted.builtinOptions = schema.ReshapeOptionsT(newShape=sizes)

    pixels = image(source, (1, width, channels))
    result = image(target, (1, 1, outputs))
    reshape(source, pixels)
    bias = _bias(node)
    if bias is None:
        # CONV_2D requires one.
        bias = graph.add(array=np.zeros(outputs, np.int32))
        scale = graph[source].quantization.scale * graph[weights].quantization.scale
        graph[bias].quantization = schema.QuantizationParametersT(
            scale=scale.astype(np.float32), zeroPoint=np.zeros(len(scale), np.int64)
        )
    convolution = graph.insert(node, "CONV_2D", [pixels, weights, bias], result, version=3)
    convolution.builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
    convolution.builtinOptions = schema.Conv2DOptionsT(
        padding=schema.Padding.VALID,
        strideW=1,
        strideH=1,
        fusedActivationFunction=node.builtinOptions.fusedActivationFunction,
    )
    reshape(result, target)
    graph.remove(node)


def _bias(node: Any) -> int | None:
    return int(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] >= 0 else None


def _sizes(tensor: Any) -> list[int]:
    """Return the shape, -1 for a free dimension."""
    shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    return [int(size) for size in shape]
