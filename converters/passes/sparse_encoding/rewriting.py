"""Dense weights -> sparse weights with the same results. Runs in child processes.

DENSIFY unpacks a sparse constant; the runtime runs it once, when it loads the file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ...jobs.read import text
from ..graph import DTYPES, TYPE_NAMES, Graph, graphs
from . import fully_connected
from .encoding import Encoding, Level, encode
from .rounding import Grid

Json = dict[str, Any]
Grids = dict[tuple[int, int], Grid]

# Ops that compute the same from the output of DENSIFY, on every kernel -> which input holds the
# weights, and which axis of the weights is that of the channels.
WEIGHTS = {"CONV_2D": (1, 0), "CONV_3D": (1, 4), "DEPTHWISE_CONV_2D": (1, 3),
           "FULLY_CONNECTED": (1, 0), "GATHER": (0, 0), "TRANSPOSE_CONV": (1, 0)}  # fmt: skip
# XNNPACK does not run these, but runs DENSIFY -> DEQUANTIZE before them: they would then read
# memory that was not written.
_NOT_DEQUANTIZED = {"CONV_3D", "GATHER", "TRANSPOSE_CONV"}
# Bytes of the tables around a sparse tensor: DENSIFY, its output, the levels. Measured.
_TABLES = 200

_VECTORS = {
    np.dtype(np.uint8): (schema.SparseIndexVector.Uint8Vector, schema.Uint8VectorT),
    np.dtype(np.uint16): (schema.SparseIndexVector.Uint16Vector, schema.Uint16VectorT),
    np.dtype(np.int32): (schema.SparseIndexVector.Int32Vector, schema.Int32VectorT),
}


def dynamic_range(model: Any) -> str:
    """Return the name of integer weights that an op computes floats with; "" if there are none."""
    for graph in graphs(model):
        for node in graph.tables.operators:
            floats = any(graph[int(i)].type == schema.TensorType.FLOAT32 for i in node.outputs)
            if graph.op(node) == "DEQUANTIZE" or not floats:
                continue
            for index in (int(i) for i in node.inputs if i >= 0):
                if _is_weight(graph, index) and "int" in TYPE_NAMES[graph[index].type]:
                    return _name(graph, index)
    return ""


def round_weights(model: Any) -> Grids:
    """Round the float weights of multiplying ops to int8 grids; they stay stored as float32.

    Args:
        model: A `ModelT`, which is changed. Float16 weights become float32, without DEQUANTIZE.

    Returns:
        (index of subgraph, index of tensor) -> grid.
    """
    grids: Grids = {}
    for number, graph in enumerate(graphs(model)):
        # All of them: XNNPACK computes an op with a float16 bias and int8 weights wrongly.
        halves = graph.fold_float16()
        for index in range(len(graph.tables.tensors)):
            if not _is_weight(graph, index) or _why_dense(graph, index):
                continue
            ops = {graph.op(node) for node, _ in graph.readers(index)}
            if graph[index].type != schema.TensorType.FLOAT32 or ops & _NOT_DEQUANTIZED:
                continue
            dtype = np.dtype(np.float16 if index in halves else np.float32)
            grid = Grid.of(graph.array(index).astype(dtype), WEIGHTS[ops.pop()][1])
            # Scales and zero points, for each channel, must not take more than int8 saves.
            if 3 * grid.values.size > 12 * grid.scale.size + _TABLES:
                grids[number, index] = grid
                graph.set_array(index, grid.weights())
    return grids


def rewrite_weights(model: Any, grids: Grids, unsafe: str, skip_zeros: bool = False) -> list[Json]:
    """Store every weight sparse that is smaller so.

    Args:
        model: A `ModelT`, which is changed.
        grids: The result of `round_weights`: weights to be stored as int8.
        unsafe: Why no weight may be unpacked by DENSIFY; "" if they may.
        skip_zeros: Whether FULLY_CONNECTED may compute with sparse weights. Defaults to False.

    Returns:
        One entry for each weight of all subgraphs: the fields of `SparseWeight`.
    """
    return [
        _rewrite(graph, index, grids.get((number, index)), unsafe, skip_zeros)
        for number, graph in enumerate(graphs(model))
        for index in range(len(graph.tables.tensors))
        if _is_weight(graph, index)
    ]


def _rewrite(graph: Graph, index: int, grid: Grid | None, unsafe: str, skip_zeros: bool) -> Json:
    stored = graph.model.buffers[graph[index].buffer].data.nbytes
    entry: Json = {
        "name": _name(graph, index),
        "dtype": TYPE_NAMES[graph[index].type],
        "shape": [int(size) for size in graph[index].shape],
        "zeros": None,
        "bytes_before": stored,
        "bytes_after": stored,
        "encoding": "",
        "reason": _why_dense(graph, index),
    }
    if entry["reason"]:
        return entry
    array = graph.array(index) if grid is None else grid.values
    entry["zeros"] = float(np.mean(array == 0))
    if skip_zeros and grid is None and fully_connected.should_skip_zeros(graph, index):
        encoding = encode(array, fully_connected.SKIPPING)
        _store(graph, index, encoding)
        fully_connected.skip_zeros(graph)
        return {**entry, "bytes_after": encoding.bytes, "encoding": f"{encoding}, zeros skipped"}
    if grid is not None:
        entry["dtype"], entry["bytes_before"] = grid.dtype.name, grid.dtype.itemsize * array.size
        index = _dequantize(graph, index, grid)
    connected = fully_connected.int8_readers(graph, index) if grid is None else []
    if connected:
        array = array.reshape(fully_connected.kernel_shape(*array.shape))
    encoding = encode(array)
    extra = sum(fully_connected.extra_bytes(graph, node) for node in connected)
    after = encoding.bytes + _TABLES + extra
    if unsafe or after >= array.nbytes:
        reason = unsafe or "no sparse encoding is smaller"
        return {**entry, "bytes_after": array.nbytes, "reason": reason}
    for node in connected:
        fully_connected.to_convolution(graph, node, array.shape)
    graph[index].shape = np.array(array.shape, np.int32)
    sparse = graph.add(like=index)
    _store(graph, sparse, encoding)
    graph.compute(index, "DENSIFY", sparse, version=1)
    return {**entry, "bytes_after": after, "encoding": str(encoding)}


def _name(graph: Graph, index: int) -> str:
    return text(graph[index].name)


def _is_weight(graph: Graph, index: int) -> bool:
    kind = TYPE_NAMES[graph[index].type]
    numbers = "float" in kind or kind in ("int8", "uint8", "int4", "int2")
    return numbers and len(graph[index].shape) > 1 and graph.constant(index)


def _why_dense(graph: Graph, index: int) -> str:
    """Return why a weight must stay dense; "" if it need not."""
    tensor = graph[index]
    if tensor.sparsity is not None:
        return "it is sparse already"
    if tensor.type not in DTYPES:
        return f"the runtime unpacks no sparse {TYPE_NAMES[tensor.type]}"
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
        return "no op reads it"
    for node, place in readers:
        op = graph.op(node)
        if op not in WEIGHTS or place != WEIGHTS[op][0]:
            return f"{op} takes it dense only"
        if tensor.type == schema.TensorType.INT8 and op == "FULLY_CONNECTED":
            reason = fully_connected.why_dense(graph, node)
            if reason:
                return reason
    return ""


def _dequantize(graph: Graph, index: int, grid: Grid) -> int:
    """Compute a constant from int8 by DEQUANTIZE; return the int8 constant."""
    stored = graph.add(like=index, array=grid.values)
    graph[stored].quantization = schema.QuantizationParametersT(
        scale=grid.scale,
        zeroPoint=np.zeros(len(grid.scale), np.int64),
        quantizedDimension=grid.axis,
    )
    graph.compute(index, "DEQUANTIZE", stored, version=5)
    return stored


def _store(graph: Graph, index: int, encoding: Encoding) -> None:
    """Store the values of a tensor in a sparse encoding."""
    shape = graph[index].shape
    graph.set_array(index, encoding.values)
    graph[index].shape = shape
    graph[index].sparsity = schema.SparsityParametersT(
        traversalOrder=np.array(encoding.traversal_order, np.int32),
        blockMap=np.array(encoding.block_map, np.int32),
        dimMetadata=[_level(level) for level in encoding.levels],
    )


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
