"""The bytes of a .tflite file -> plain Python values. Runs in child processes, without TensorFlow.

Schema: https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs
"""

from __future__ import annotations

import gzip
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

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
    """Describe the file at `request["path"]`, or say in "invalid" why it cannot be read."""
    path = Path(request["path"])
    error = load_error(path)
    if error is not None and ("flatbuffer" in error.lower() or "identifier" in error.lower()):
        return {"invalid": error}
    try:
        return {**describe(path.read_bytes()), "load_error": error}
    except IndexError as damage:
        return {"invalid": str(damage)}


def load_error(path: Path) -> str | None:
    """Return why the runtime, which checks every offset, does not load a file; None if it does."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        Interpreter(model_path=str(path)).allocate_tensors()
    except (ValueError, RuntimeError) as error:
        return str(error).strip()
    return None


def describe(content: bytes) -> Json:
    """Describe a file: everything except the values of its weights.

    Args:
        content: The whole file.

    Returns:
        The fields of `Inspection`, except `path` and `load_error`.

    Raises:
        IndexError: The file names a tensor, a buffer or an op that it does not hold.
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    buffers = [_data(buffer, content) for buffer in _each(model.buffers)]
    names = _names(schema.BuiltinOperator)
    codes = [_op_name(code, names) for code in _each(model.operatorCodes)]
    tensors: list[Json] = []
    nodes: list[Json] = []
    graphs: list[range] = []
    borders: list[Json] = []
    for index, graph in enumerate(_each(model.subgraphs)):
        own = range(len(tensors), len(tensors) + len(_each(graph.tensors)))
        graphs.append(own)
        tensors += [_tensor(tensor, buffers, index) for tensor in _each(graph.tensors)]
        borders.append(
            {
                "inputs": [_place(own, i) for i in _each(graph.inputs)],
                "outputs": [_place(own, i) for i in _each(graph.outputs)],
            }
        )
        nodes += [
            {
                "op": codes[node.opcodeIndex],
                "inputs": [_place(own, i) for i in _each(node.inputs) if i >= 0],
                "outputs": [_place(own, i) for i in _each(node.outputs)],
                "subgraph": index,
                "options": _options(node.builtinOptions),
            }
            for node in _each(graph.operators)
        ]
    return {
        "bytes": len(content),
        "gzip_bytes": len(gzip.compress(content, 9, mtime=0)),
        "version": int(model.version),
        "description": _text(model.description),
        "ops": dict(Counter(node["op"] for node in nodes).most_common()),
        "nodes": nodes,
        "tensors": tensors,
        "subgraphs": borders,
        "signatures": [_signature(s, graphs) for s in _each(model.signatureDefs)],
        "constant_bytes": sum(len(data) for data in buffers),
        "buffers": len(buffers),
        "metadata": {_text(m.name): len(buffers[m.buffer]) for m in _each(model.metadata)},
    }


def _each(values: Any) -> Any:
    return () if values is None else values


def _text(value: bytes | str | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""


def _data(buffer: Any, content: bytes) -> Bytes:
    if buffer.data is not None and len(buffer.data):
        return np.asarray(buffer.data, np.uint8)
    # A file over 2 GB keeps its buffers after the flatbuffer. Offsets 0 and 1 mean no data.
    start = buffer.offset if buffer.offset > 1 else 0
    size = buffer.size if start else 0
    return np.frombuffer(content[start : start + size], np.uint8)


def _op_name(code: Any, names: dict[int, str]) -> str:
    if code.customCode:
        return _text(code.customCode)
    # Files from the time of fewer than 128 ops use the older, one-byte field.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return names.get(number, f"UNKNOWN_{number}")


def _options(options: Any) -> Json:
    """Return the options of an op by their names in the schema; enumerations as words."""
    words = {"padding": schema.Padding, "fusedActivationFunction": schema.ActivationFunctionType}
    found: Json = {}
    for name, value in ({} if options is None else vars(options)).items():
        snake = re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), name)
        if name in words:
            found[snake] = _names(words[name]).get(value, str(value))
        elif isinstance(value, bool | int | float):
            found[snake] = value
    return found


def _type_name(number: int) -> str:
    return _names(schema.TensorType).get(number, f"UNKNOWN_{number}")


def _names(enumeration: type) -> dict[int, str]:
    return {v: k for k, v in vars(enumeration).items() if isinstance(v, int)}


def _tensor(tensor: Any, buffers: list[Bytes], subgraph: int) -> Json:
    kind = _type_name(tensor.type)
    signature = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    shape = [int(d) for d in _each(tensor.shape)]
    quantization = tensor.quantization
    scales = [float(s) for s in _each(quantization and quantization.scale)]
    zeros = [int(z) for z in _each(quantization and quantization.zeroPoint)]
    axis = int(quantization.quantizedDimension) if len(scales) > 1 else None
    data = buffers[tensor.buffer]
    return {
        "name": _text(tensor.name),
        "subgraph": subgraph,
        "dtype": kind.lower(),
        "shape": [None if int(d) < 0 else int(d) for d in _each(signature)],
        "scales": scales,
        "zero_points": zeros,
        "axis": axis,
        "constant": bool(len(data)),
        "buffer": int(tensor.buffer),
        "bytes": len(data) or _bytes(kind, shape),
        "sparsity": _sparsity(data, kind, shape, zeros, axis, tensor.sparsity is not None),
        "values": _small(data, kind),
    }


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
        return 1 - float(np.count_nonzero(values)) / size
    if len(values) < size:
        return None
    values = values[:size].reshape(shape)
    zero_point = np.array(zeros or [0])
    if axis is not None and len(zero_point) == shape[axis]:
        zero_point = zero_point.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    else:
        zero_point = zero_point[0]
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


def _place(tensors: range, index: Any) -> int:
    """Return the place among all tensors of a tensor of one graph, by its index there."""
    if not 0 <= index < len(tensors):
        raise IndexError(f"a graph of {len(tensors)} tensors names tensor {int(index)}")
    return tensors[int(index)]


def _signature(signature: Any, graphs: list[range]) -> Json:
    own = graphs[signature.subgraphIndex]
    return {
        "key": _text(signature.signatureKey),
        "inputs": {_text(m.name): _place(own, m.tensorIndex) for m in _each(signature.inputs)},
        "outputs": {_text(m.name): _place(own, m.tensorIndex) for m in _each(signature.outputs)},
    }
