"""Dense weights -> sparse ones, the computation the same. Runs in child processes.

A sparse constant goes through DENSIFY, which the runtime carries out once, as it loads the file.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .rounding import Grid
from .sparse_encoding import Encoding, Level, encode
from .tables import DTYPES, Graph

Json = dict[str, Any]
Grids = dict[tuple[int, int], Grid]

# Ops that compute the same from DENSIFY's output, on every kernel: where they take their weights,
# and along which axis of these the channels lie.
WEIGHTS = {"CONV_2D": (1, 0), "CONV_3D": (1, 4), "DEPTHWISE_CONV_2D": (1, 3),
           "FULLY_CONNECTED": (1, 0), "GATHER": (0, 0), "TRANSPOSE_CONV": (1, 0)}  # fmt: skip
# Of these, the ones that XNNPACK leaves alone, but takes DENSIFY -> DEQUANTIZE before them: they
# read memory that nobody wrote.
_NOT_DEQUANTIZED = {"CONV_3D", "GATHER", "TRANSPOSE_CONV"}
# Bytes of the tables around a sparse tensor (DENSIFY, its output, the levels), and of those that
# make a convolution of a FULLY_CONNECTED (two RESHAPEs, their outputs); measured.
_TABLES = 200
_CONVOLUTION = 300

_TYPE_NAMES = {v: k.lower() for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
_VECTORS = {
    np.dtype(np.uint8): (schema.SparseIndexVector.Uint8Vector, schema.Uint8VectorT),
    np.dtype(np.uint16): (schema.SparseIndexVector.Uint16Vector, schema.Uint16VectorT),
    np.dtype(np.int32): (schema.SparseIndexVector.Int32Vector, schema.Int32VectorT),
}


def graphs(model: Any) -> list[Graph]:
    """The subgraphs of a model."""
    return [Graph(model, number) for number in range(len(model.subgraphs))]


def dynamic_range(model: Any) -> str:
    """A tensor of integer weights that an op multiplies with float inputs; "" if there is none."""
    for graph in graphs(model):
        for node in graph.tables.operators or ():
            place, _ = WEIGHTS.get(graph.op(node), (None, 0))
            inputs = [] if node.inputs is None else [int(i) for i in node.inputs]
            if place is None or graph[inputs[0]].type != schema.TensorType.FLOAT32:
                continue
            if _TYPE_NAMES[graph[inputs[place]].type] in ("int8", "int4", "int2", "uint8"):
                return _name(graph, inputs[place])
    return ""


def round_weights(model: Any) -> Grids:
    """Move the float weights that ops multiply with onto int8 grids; they stay float32 for now.

    Args:
        model: A `ModelT`, which is changed. A float16 weight becomes float32, its DEQUANTIZE goes.

    Returns:
        (subgraph, tensor) -> its grid.
    """
    grids: Grids = {}
    for number, graph in enumerate(graphs(model)):
        for node in list(graph.tables.operators or ()):
            # All of them: XNNPACK miscomputes an op with a bias from float16, weights from int8.
            if graph.op(node) == "DEQUANTIZE" and graph.constant(int(node.inputs[0])):
                graph.fold_float16(node)
        for index in range(len(graph.tables.tensors)):
            if not _is_weight(graph, index) or _why_dense(graph, index):
                continue
            ops = {graph.op(node) for node, _ in graph.readers(index)}
            if graph[index].type != schema.TensorType.FLOAT32 or ops & _NOT_DEQUANTIZED:
                continue
            grid = Grid.of(graph.array(index), WEIGHTS[ops.pop()][1])
            # Scales and zero points, for each channel, must not take more than int8 saves.
            if 3 * grid.values.size > 12 * grid.scale.size + _TABLES:
                grids[number, index] = grid
                graph.set_array(index, grid.weights())
    return grids


def rewrite(model: Any, grids: Grids, unsafe: str) -> list[Json]:
    """Make every weight sparse for which that pays.

    Args:
        model: A `ModelT`, which is changed.
        grids: What `round_weights` gave: weights to be stored as int8.
        unsafe: Why nothing may go through DENSIFY; "" if it may.

    Returns:
        The weights of all subgraphs, and what became of each: the fields of `SparseWeight`.
    """
    return [
        _rewrite(graph, index, grids.get((number, index)), unsafe)
        for number, graph in enumerate(graphs(model))
        for index in range(len(graph.tables.tensors))
        if _is_weight(graph, index)
    ]


def _rewrite(graph: Graph, index: int, grid: Grid | None, unsafe: str) -> Json:
    before = graph.model.buffers[graph[index].buffer].data.nbytes
    entry: Json = {
        "name": _name(graph, index),
        "dtype": _TYPE_NAMES[graph[index].type],
        "shape": [int(size) for size in graph[index].shape],
        "zeros": None,
        "bytes_before": before,
        "bytes_after": before,
        "encoding": "",
        "reason": _why_dense(graph, index),
    }
    if entry["reason"]:
        return entry
    array = graph.array(index) if grid is None else grid.values
    entry["zeros"] = float(np.mean(array == 0))
    connected = _int8_fully_connected(graph, index)
    if connected:
        array = array.reshape(_as_kernel(*array.shape))
    encoding = encode(array)
    after = encoding.bytes + _TABLES
    # A convolution has a bias, with a scale for each channel.
    after += sum(
        _CONVOLUTION + (0 if _bias(n) is not None else 8 * array.shape[0]) for n in connected
    )
    pays = after < array.nbytes
    entry["bytes_after"] = after if pays and not unsafe else array.nbytes
    if grid is not None:
        index = _dequantize(graph, index, grid)
    if unsafe or not pays:
        entry["reason"] = unsafe or "no sparse encoding is smaller"
        return entry
    entry["encoding"] = str(encoding)
    for node in connected:
        _to_convolution(graph, node, array.shape)
    _densify(graph, index, encoding, array.shape)
    return entry


def _name(graph: Graph, index: int) -> str:
    return (graph[index].name or b"").decode("utf-8", "replace")


def _is_weight(graph: Graph, index: int) -> bool:
    kind = _TYPE_NAMES[graph[index].type]
    numbers = kind.startswith(("float", "bfloat")) or kind in ("int8", "uint8", "int4", "int2")
    return numbers and len(graph[index].shape) > 1 and graph.constant(index)


def _why_dense(graph: Graph, index: int) -> str:
    """What stands in the way of a sparse form; "" for nothing."""
    tensor = graph[index]
    if tensor.sparsity is not None:
        return "it is sparse already"
    if tensor.type not in DTYPES:
        return f"the runtime unpacks no sparse {_TYPE_NAMES[tensor.type]}"
    if index in graph.border:
        return "it is an input or an output of its graph"
    readers = graph.readers(index)
    if tensor.type == schema.TensorType.FLOAT16:
        if any(graph.op(node) != "DEQUANTIZE" for node, _ in readers):
            return "an op takes it as float16"
        readers = [r for node, _ in readers for r in graph.readers(int(node.outputs[0]))]
        for node, _ in readers:
            if graph.op(node) in _NOT_DEQUANTIZED:
                return f"{graph.op(node)} takes float16 dense only"
    if not readers:
        return "no op takes it"
    for node, place in readers:
        op = graph.op(node)
        if op not in WEIGHTS or place != WEIGHTS[op][0]:
            return f"{op} takes it dense only"
        if tensor.type == schema.TensorType.INT8 and op == "FULLY_CONNECTED":
            reason = _why_connected(graph, node)
            if reason:
                return reason
    return ""


def _why_connected(graph: Graph, node: Any) -> str:
    """Why an int8 FULLY_CONNECTED cannot be a convolution; "" if it can.

    It has to: the runtime does not load one whose weights come from DENSIFY.
    """
    source, target = graph[int(node.inputs[0])], graph[int(node.outputs[0])]
    if node.builtinOptions.weightsFormat or source.type != schema.TensorType.INT8:
        return "FULLY_CONNECTED takes it dense only"
    if target.type != schema.TensorType.INT8:
        return "FULLY_CONNECTED takes it dense only"
    if sum(size < 0 for size in _signature(target)) > 1:
        return "FULLY_CONNECTED has an output with several free dimensions"
    return ""


def _signature(tensor: Any) -> list[int]:
    """The shape, -1 where it is free."""
    shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    return [int(size) for size in shape]


def _int8_fully_connected(graph: Graph, index: int) -> list[Any]:
    if graph[index].type != schema.TensorType.INT8:
        return []
    return [n for n, _ in graph.readers(index) if graph.op(n) == "FULLY_CONNECTED"]


def _bias(node: Any) -> int | None:
    return int(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] >= 0 else None


def _as_kernel(outputs: int, inputs: int) -> tuple[int, int, int, int]:
    """A convolution's kernel: a row of few pixels with at most 256 channels, if that can be.

    One byte an index is enough for these.
    """
    widths = [w for w in range(1, 33) if inputs % w == 0 and inputs // w <= 256]
    width = widths[0] if widths else 1
    return outputs, 1, width, inputs // width


def _to_convolution(graph: Graph, node: Any, kernel: tuple[int, ...]) -> None:
    """FULLY_CONNECTED -> RESHAPE, CONV_2D over the one row that there is, RESHAPE."""
    source, weights = int(node.inputs[0]), int(node.inputs[1])
    target = int(node.outputs[0])
    outputs, _, width, channels = kernel
    rows = math.prod(graph[target].shape) // outputs
    free = any(size < 0 for size in _signature(graph[target]))

    def image(like: int, shape: tuple[int, ...]) -> int:
        index = graph.add(like)
        graph[index].shape = np.array([rows, *shape], np.int32)
        graph[index].shapeSignature = np.array([-1, *shape], np.int32) if free else None
        return index

    def reshape(source: int, target: int) -> None:
        """With the sizes in its options, not in a constant."""
        inserted = graph.insert(node, "RESHAPE", [source], target, version=1)
        inserted.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
        sizes = np.array(_signature(graph[target]), np.int32)
        inserted.builtinOptions = schema.ReshapeOptionsT(newShape=sizes)

    pixels = image(source, (1, width, channels))
    result = image(target, (1, 1, outputs))
    reshape(source, pixels)
    bias = _bias(node)
    if bias is None:
        bias = graph.add(array=np.zeros(outputs, np.int32))
        scale = graph[source].quantization.scale * graph[weights].quantization.scale
        graph[bias].quantization = schema.QuantizationParametersT(
            scale=scale.astype(np.float32), zeroPoint=np.zeros(len(scale), np.int64)
        )
    options = schema.Conv2DOptionsT(
        padding=schema.Padding.VALID,
        strideW=1,
        strideH=1,
        fusedActivationFunction=node.builtinOptions.fusedActivationFunction,
    )
    convolution = graph.insert(node, "CONV_2D", [pixels, weights, bias], result, version=3)
    convolution.builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
    convolution.builtinOptions = options
    reshape(result, target)
    graph.remove(node)


def _dequantize(graph: Graph, index: int, grid: Grid) -> int:
    """Let a constant be computed from int8; returns the int8 constant."""
    stored = graph.add(like=index, array=grid.values)
    graph[stored].quantization = schema.QuantizationParametersT(
        scale=grid.scale,
        zeroPoint=np.zeros(len(grid.scale), np.int64),
        quantizedDimension=grid.axis,
    )
    graph.compute(index, "DEQUANTIZE", stored, version=5)
    return stored


def _densify(graph: Graph, index: int, encoding: Encoding, shape: tuple[int, ...]) -> None:
    """Let a constant be unpacked from a sparse one."""
    graph[index].shape = np.array(shape, np.int32)
    stored = graph.add(like=index, array=encoding.values)
    graph[stored].shape = graph[index].shape
    graph[stored].sparsity = schema.SparsityParametersT(
        traversalOrder=np.array(encoding.traversal_order, np.int32),
        blockMap=np.array(encoding.block_map, np.int32),
        dimMetadata=[_level(level) for level in encoding.levels],
    )
    graph.compute(index, "DENSIFY", stored, version=1)


def _level(level: Level) -> Any:
    if level.segments is None or level.indices is None:
        return schema.DimensionMetadataT(format=schema.DimensionType.DENSE, denseSize=level.size)
    segments_type, segments = _VECTORS[level.segments.dtype]
    indices_type, indices = _VECTORS[level.indices.dtype]
    return schema.DimensionMetadataT(
        format=schema.DimensionType.SPARSE_CSR,
        arraySegmentsType=segments_type,
        arraySegments=segments(level.segments),
        arrayIndicesType=indices_type,
        arrayIndices=indices(level.indices),
    )
