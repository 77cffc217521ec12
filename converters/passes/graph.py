"""A subgraph of a .tflite file that can be read and changed. Runs in child processes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

Array = np.ndarray[Any, np.dtype[Any]]

DTYPES: dict[int, np.dtype[Any]] = {
    schema.TensorType.FLOAT32: np.dtype("<f4"),
    schema.TensorType.FLOAT16: np.dtype("<f2"),
    schema.TensorType.INT8: np.dtype("i1"),
    schema.TensorType.INT32: np.dtype("<i4"),
    schema.TensorType.INT64: np.dtype("<i8"),
}
TYPES = {dtype: number for number, dtype in DTYPES.items()}
TYPE_NAMES = {v: k.lower() for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
OPS = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}


class Graph:
    """A subgraph and the model that it belongs to.

    Methods take tensors by their index. New tensors are added at the end, so that indices stay.

    Attributes:
        model: The `ModelT`.
        tables: The `SubGraphT`.
    """

    def __init__(self, model: Any, number: int) -> None:
        self.model = model
        self.tables = model.subgraphs[number]
        # An absent vector and an empty one mean the same.
        for field in ("tensors", "operators"):
            setattr(self.tables, field, getattr(self.tables, field) or [])
        for owner in (self.tables, *self.tables.tensors, *self.tables.operators):
            for field in ("inputs", "outputs", "shape"):
                if getattr(owner, field, 0) is None:
                    setattr(owner, field, np.zeros(0, np.int32))

    def __getitem__(self, index: int) -> Any:
        return self.tables.tensors[index]

    @property
    def border(self) -> set[int]:
        """Return the indices of the inputs and outputs of the subgraph."""
        return {*map(int, self.tables.inputs), *map(int, self.tables.outputs)}

    def op(self, node: Any) -> str:
        """Return the name of an op; "CUSTOM" for a custom op."""
        code = self.model.operatorCodes[node.opcodeIndex]
        # Files written before there were 128 ops have the number in the older field.
        name: str = OPS.get(max(code.builtinCode, code.deprecatedBuiltinCode), "UNKNOWN")
        return name

    def name(self, index: int) -> str:
        """Return the name of a tensor; "" if it has none."""
        return (self[index].name or b"").decode("utf-8", "replace")

    def readers(self, index: int) -> list[tuple[Any, int]]:
        """Return the ops that read a tensor, each with the position among its inputs."""
        return [
            (node, place)
            for node in self.tables.operators
            for place, tensor in enumerate(node.inputs)
            if tensor == index
        ]

    def constant(self, index: int) -> bool:
        """Return whether the file stores the values of a tensor."""
        data = self.model.buffers[self[index].buffer].data
        return data is not None and len(data) > 0

    def array(self, index: int) -> Array:
        """Return the values of a dense constant whose type is in `DTYPES`."""
        data = np.asarray(self.model.buffers[self[index].buffer].data, np.uint8)
        return data.view(DTYPES[self[index].type]).reshape(self[index].shape)

    def set_array(self, index: int, array: Array | None) -> None:
        """Store values, with their type and shape, for a tensor; None makes it a computed one."""
        tensor = self[index]
        tensor.buffer = 0
        if array is not None:
            tensor.buffer = len(self.model.buffers)
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            self.model.buffers.append(schema.BufferT(data=data))
            tensor.type = TYPES[array.dtype]
            tensor.shape = np.array(array.shape, np.int32)

    def add(self, like: int | None = None, array: Array | None = None) -> int:
        """Add a tensor with the fields of `like` and the values of `array`; return its index."""
        tensor = schema.TensorT() if like is None else copy.copy(self[like])
        self.tables.tensors.append(tensor)
        index = len(self.tables.tensors) - 1
        self.set_array(index, array)
        return index

    def insert(self, before: Any, name: str, inputs: list[int], output: int, version: int) -> Any:
        """Insert an op before another op, and return it."""
        node = schema.OperatorT(
            opcodeIndex=self.code(name, version),
            inputs=np.array(inputs, np.int32),
            outputs=np.array([output], np.int32),
        )
        self.tables.operators.insert(self.tables.operators.index(before), node)
        return node

    def as_product(self, node: Any, factors: list[int], version: int) -> None:
        """Make an op the product of two tensors; its output stays."""
        node.opcodeIndex = self.code("MUL", version)
        node.inputs = np.array(factors, np.int32)
        node.builtinOptionsType = schema.BuiltinOptions.MulOptions
        node.builtinOptions = schema.MulOptionsT()

    def compute(self, index: int, name: str, source: int, version: int) -> None:
        """Make a constant the output of a new op that reads another tensor."""
        first, _ = self.readers(index)[0]
        self.insert(first, name, [source], index, version)
        self.set_array(index, None)

    def fold_float16(self) -> set[int]:
        """Store float16 constants as the float32 output of their DEQUANTIZE; return those."""
        folded = set()
        for node in list(self.tables.operators):
            if self.op(node) != "DEQUANTIZE":
                continue
            source, target = int(node.inputs[0]), int(node.outputs[0])
            if not self.constant(source):
                continue
            if self[source].type == schema.TensorType.FLOAT16 and self[source].sparsity is None:
                folded.add(target)
                self.set_array(target, self.array(source).astype(np.float32))
                self.remove(node)
                if not self.readers(source):
                    self.set_array(source, None)
        return folded

    def redirect(self, node: Any, place: int, index: int) -> None:
        """Make an op read another tensor at a position among its inputs."""
        node.inputs = np.array(node.inputs, np.int32)  # what was read from bytes is read-only
        node.inputs[place] = index

    def remove(self, node: Any) -> None:
        """Remove an op."""
        self.tables.operators.remove(node)

    def code(self, name: str, version: int) -> int:
        """Return the index of an operator code of at least this version, added if it is missing."""
        number = getattr(schema.BuiltinOperator, name)
        codes = self.model.operatorCodes
        for index, code in enumerate(codes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == number:
                code.version = max(code.version, version)
                return index
        code = schema.OperatorCodeT(
            builtinCode=number, deprecatedBuiltinCode=min(number, 127), version=version
        )
        codes.append(code)
        return len(codes) - 1


def graphs(model: Any) -> list[Graph]:
    """Return the subgraphs of a model."""
    return [Graph(model, number) for number in range(len(model.subgraphs))]
