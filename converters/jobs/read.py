"""The bytes of a .tflite file -> plain Python values, without TensorFlow and without the runtime.

Imports its siblings only, since child processes use it, too.
Schema: https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs
"""

from __future__ import annotations

import functools
import math
import re
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .bounded import Bounded, Damaged
from .soundness import check

Json = dict[str, Any]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]

_INT_BITS = {"INT4": 4, "UINT4": 4, "INT2": 2}
_NUMPY = {
    "FLOAT32": "<f4",
    "FLOAT16": "<f2",
    "FLOAT64": "<f8",
    "BFLOAT16": "<u2",
    "INT8": "i1",
    "UINT8": "u1",
    "INT16": "<i2",
    "UINT16": "<u2",
    "INT32": "<i4",
    "UINT32": "<u4",
    "INT64": "<i8",
    "UINT64": "<u8",
    "BOOL": "?",
}


def job(request: Json) -> Json:
    """Load the file at `request["path"]`; say in "load_error" why the runtime does not."""
    return {"load_error": load_error(Path(request["path"]))}


def load_error(path: Path) -> str | None:
    """Return why the runtime, which may crash, does not load a file; None if it does."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        Interpreter(model_path=str(path)).allocate_tensors()
    except (ValueError, RuntimeError) as error:
        return str(error).strip()
    return None


def describe(content: bytes) -> Json:
    """Describe a file: everything except the values of its weights.

    What is returned holds together: every index names something, ops have the inputs, outputs and
    options that they need, and scales are finite.

    Args:
        content: The whole file.

    Returns:
        The fields of `Inspection`, except `path`.

    Raises:
        Damaged: The content does not fit together.
    """
    try:
        found = _describe(content)
    except Damaged:
        raise
    except (struct.error, ValueError, TypeError, IndexError, OverflowError, MemoryError) as error:
        # What reading raises where an offset or a length leads out of the file.
        raise Damaged(f"an offset or a length in it is wrong ({error})") from error
    check(found)
    return found


def _describe(content: bytes) -> Json:
    model = schema.Model.GetRootAs(content, 0)
    read = Bounded(content)
    buffers = [_data(read, buffer, content) for buffer in read.tables(model, "Buffers")]
    codes = [_op_name(code) for code in read.tables(model, "OperatorCodes")]
    tensors: list[Json] = []
    nodes: list[Json] = []
    graphs: list[range] = []
    borders: list[Json] = []
    for index, graph in enumerate(read.tables(model, "Subgraphs")):
        described = [_tensor(read, t, buffers, index) for t in read.tables(graph, "Tensors")]
        own = range(len(tensors), len(tensors) + len(described))
        graphs.append(own)
        tensors += described
        borders.append(
            {
                "name": text(graph.Name()),
                "inputs": [_place(own, i) for i in read.integers(graph, "Inputs")],
                "outputs": [_place(own, i) for i in read.integers(graph, "Outputs")],
            }
        )
        nodes += [_node(read, node, codes, own, index) for node in read.tables(graph, "Operators")]
    own_ops = set(_names(schema.BuiltinOperator).values())
    return {
        "bytes": len(content),
        "version": int(model.Version()),
        "description": text(model.Description()),
        "ops": dict(Counter(node["op"] for node in nodes).most_common()),
        "custom_ops": sorted({node["op"] for node in nodes} - own_ops),
        "nodes": nodes,
        "tensors": tensors,
        "subgraphs": borders,
        "signatures": [_signature(read, s, graphs) for s in read.tables(model, "SignatureDefs")],
        "constant_bytes": sum(len(data) for data in buffers),
        "buffers": len(buffers),
        "metadata": {
            text(entry.Name()): len(buffers[entry.Buffer()])
            for entry in read.tables(model, "Metadata")
        },
    }


def text(value: bytes | None) -> str:
    """Return a text of the file; characters that a terminal would obey become their escapes."""
    decoded = (value or b"").decode("utf-8", "replace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in decoded)


def _data(read: Bounded, buffer: Any, content: bytes) -> Bytes:
    data = read.numbers(buffer, "Data")
    if data is not None and len(data):
        return data
    # A file over 2 GB keeps its buffers after the flatbuffer. Offsets 0 and 1 mean no data.
    start = buffer.Offset()
    if start <= 1:
        return np.zeros(0, np.uint8)
    return np.frombuffer(content, np.uint8, buffer.Size(), start)


def _op_name(code: Any) -> str:
    custom = code.CustomCode()
    if custom:
        return text(custom)
    # Files from the time of fewer than 128 ops use the older, one-byte field.
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    return _names(schema.BuiltinOperator).get(number, f"UNKNOWN_{number}")


def _node(read: Bounded, node: Any, codes: list[str], own: range, subgraph: int) -> Json:
    # -1 stands for an optional input that is left out.
    inputs = read.integers(node, "Inputs")
    return {
        "op": codes[node.OpcodeIndex()],
        "inputs": [_place(own, i) for i in inputs if i >= 0],
        "outputs": [_place(own, i) for i in read.integers(node, "Outputs")],
        "subgraph": subgraph,
        "options": _options(
            schema.BuiltinOptionsCreator(node.BuiltinOptionsType(), node.BuiltinOptions())
        ),
    }


def _options(options: Any) -> Json:
    """Return the options of an op by their names in the schema; enumerations as words."""
    words = {"padding": schema.Padding, "fusedActivationFunction": schema.ActivationFunctionType}
    found: Json = {}
    for name, value in ({} if options is None else vars(options)).items():
        snake = re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), name)
        if name in words:
            found[snake] = _names(words[name]).get(value, str(value))
        elif isinstance(value, bool | int | float):
            found[snake] = value if math.isfinite(value) else str(value)
    return found


@functools.cache
def _names(enumeration: type) -> dict[int, str]:
    return {v: k for k, v in vars(enumeration).items() if isinstance(v, int)}


def _tensor(read: Bounded, tensor: Any, buffers: list[Bytes], subgraph: int) -> Json:
    kind = _names(schema.TensorType).get(tensor.Type(), f"UNKNOWN_{tensor.Type()}")
    name = text(tensor.Name())
    shape = read.integers(tensor, "Shape")
    signature = read.integers(tensor, "ShapeSignature")
    if any(size < 0 for size in shape):
        raise Damaged(f"tensor '{name}' has the shape {shape}")
    scales, zeros, axis = _quantization(read, tensor.Quantization(), name, len(shape))
    data = buffers[tensor.Buffer()]
    # Many tensors may name one buffer, and its zeros are counted for each, many at a time.
    read.count(len(data) // 16)
    return {
        "name": name,
        "subgraph": subgraph,
        "dtype": kind.lower(),
        # The runtime, too, takes the shape where the signature has another rank.
        "shape": [None if size < 0 else size for size in signature]
        if len(signature) == len(shape)
        else shape,
        "scales": scales,
        "zero_points": zeros,
        "axis": axis,
        "constant": bool(len(data)),
        "buffer": int(tensor.Buffer()),
        "bytes": len(data) or _bytes(kind, shape),
        "sparsity": _sparsity(data, kind, shape, zeros, axis, tensor.Sparsity() is not None),
        "values": _small(data, kind),
    }


def _quantization(
    read: Bounded, quantization: Any, name: str, rank: int
) -> tuple[list[float], list[int], int | None]:
    """Return the scales, as many zero points, and the axis of several scales."""
    scales = read.numbers(quantization, "Scale")
    if scales is None or not len(scales):
        return [], [], None
    read.count(len(scales))
    if not np.isfinite(scales).all():
        raise Damaged(f"tensor '{name}' has a scale that is no finite number")
    zeros = read.integers(quantization, "ZeroPoint")
    # Some programs write one zero point for all scales, or none where it is 0.
    zeros = zeros * len(scales) if len(zeros) == 1 else zeros or [0] * len(scales)
    axis = int(quantization.QuantizedDimension()) if len(scales) > 1 else None
    if len(zeros) != len(scales) or (axis is not None and not 0 <= axis < rank):
        raise Damaged(
            f"tensor '{name}' has {rank} dimension(s), {len(scales)} scale(s) along dimension "
            f"{axis} and {len(zeros)} zero point(s)"
        )
    return [float(scale) for scale in scales], zeros, axis


def _small(data: Bytes, kind: str) -> list[int] | None:
    """Return the elements of axes, paddings and shapes: at most two for each of 6 dimensions."""
    values = _values(data, kind) if kind in ("INT32", "INT64") else None
    return None if values is None or not 0 < len(values) <= 12 else [int(v) for v in values]


def _bytes(kind: str, shape: list[int]) -> int:
    if kind in _INT_BITS:
        return math.ceil(math.prod(shape) * _INT_BITS[kind] / 8)
    return math.prod(shape) * np.dtype(_NUMPY[kind]).itemsize if kind in _NUMPY else 0


def _sparsity(
    data: Bytes, kind: str, shape: list[int], zeros: list[int], axis: int | None, sparse: bool
) -> float | None:
    """Return the share of a constant's elements that are zero; None if that has no meaning."""
    size = math.prod(shape)
    values = _values(data, kind)
    if values is None or not size or not len(data):
        return None
    if sparse:
        return max(0.0, 1 - float(np.count_nonzero(values)) / size)
    if len(values) < size:
        return None
    values = values[:size].reshape(shape)
    zero_point: Any = zeros[0] if zeros else 0
    if axis is not None and len(zeros) == shape[axis]:
        zero_point = np.array(zeros).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return float(np.mean(values == zero_point))


def _values(data: Bytes, kind: str) -> Any:
    if kind in _INT_BITS:
        bits = _INT_BITS[kind]
        parts = [(data >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
        values = np.stack(parts, axis=-1).reshape(-1).astype(np.int8)
        return (
            np.where(values >= 2 ** (bits - 1), values - 2**bits, values)
            if (kind.startswith("INT"))
            else values
        )
    if kind == "BFLOAT16":
        return data.view("<u2") & 0x7FFF
    if kind not in _NUMPY or len(data) % np.dtype(_NUMPY[kind]).itemsize:
        return None
    return data.view(_NUMPY[kind])


def _place(tensors: range, index: int) -> int:
    """Return the place among all tensors of a tensor of one graph, by its index there."""
    if not 0 <= index < len(tensors):
        raise Damaged(f"a graph of {len(tensors)} tensors names tensor {index}")
    return tensors[index]


def _signature(read: Bounded, signature: Any, graphs: list[range]) -> Json:
    own = graphs[signature.SubgraphIndex()]
    sides = {
        side: {
            text(entry.Name()): _place(own, entry.TensorIndex())
            for entry in read.tables(signature, side.capitalize())
        }
        for side in ("inputs", "outputs")
    }
    return {"key": text(signature.SignatureKey()), **sides}
