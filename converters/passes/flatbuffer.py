"""The bytes of a .tflite file <-> its tables, each stored once. Runs in child processes.

Two references in a FlatBuffer may point to the same place, so equal tables need not be repeated:
https://flatbuffers.dev/internals/
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .base import Refused
from .runtime_note import NOTE

Array = np.ndarray[Any, np.dtype[Any]]

IDENTIFIER = b"TFL3"

# The runtime reads buffers in place, with loads of this width.
ALIGNMENT = 16

_LARGEST = 2**31
"""Bytes: offsets inside the tables are signed numbers of 32 bits."""

# Metadata that the converter writes about itself and that no runtime reads.
_NOTES = (b"CONVERSION_METADATA", NOTE)


def unpack(content: bytes) -> Any:
    """Read the tables of a file.

    Some programs keep constants of 256 KiB and more after the tables, where TensorFlow Lite Micro
    reads nothing and computes with zeros. Here, they are among the tables, where `pack` leaves
    them.

    Args:
        content: The whole file.

    Returns:
        The tables, as the schema's `ModelT`; their fields may be changed.

    Raises:
        Refused: The file is larger than tables can be, or keeps options of custom ops outside them.
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    nodes = [node for graph in model.subgraphs for node in graph.operators or ()]
    if len(content) >= _LARGEST or any(n.largeCustomOptionsOffset for n in nodes):
        raise Refused(
            "keeps data outside its tables, as files of over 2 GB do: no pass can rewrite it"
        )
    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def pack(model: Any, names: bool = True) -> bytes:
    """Write the tables of a file, each of several equal tables, vectors, texts and buffers once.

    The converter stores a vector of zero points for each tensor, 8 bytes a channel, and an empty
    buffer for each activation. Together they are a large part of a small int8 file.

    Args:
        model: A `ModelT`. It is changed: unused buffers and op codes are removed, the others
            numbered anew.
        names: Whether to keep what no runtime needs: the names of tensors that are no inputs or
            outputs, the description of the file, and metadata that the converter writes about
            itself. Defaults to True.

    Returns:
        The whole file; every buffer begins at a multiple of 16 bytes.
    """
    if not names:
        _drop_names(model)
    _share_buffers(model)
    _drop_codes(model)
    builder = _Builder()
    root = _once(model, {}).Pack(builder)
    builder.Finish(root, file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _drop_names(model: Any) -> None:
    for graph in model.subgraphs:
        border = {*map(int, graph.inputs), *map(int, graph.outputs)}
        for index, tensor in enumerate(graph.tensors):
            if index not in border:
                tensor.name = None
    model.description = None
    model.metadata = [m for m in model.metadata or () if m.name not in _NOTES]


def _share_buffers(model: Any) -> None:
    """Number the buffers anew: 0 is the one without data, and no two others are equal."""
    old = model.buffers
    numbers: dict[bytes | None, int] = {None: 0}
    model.buffers = [schema.BufferT()]
    for owner in (*(t for g in model.subgraphs for t in g.tensors or ()), *(model.metadata or ())):
        data = old[owner.buffer].data
        # None and empty differ: a tensor with an empty buffer is a constant for the runtime.
        content = None if data is None else np.asarray(data, np.uint8).tobytes()
        if content is not None and content not in numbers:
            numbers[content] = len(model.buffers)
            model.buffers.append(_Buffer(content))
        owner.buffer = numbers[content]
    model.metadataBuffer = None


def _drop_codes(model: Any) -> None:
    """Remove the op codes that no op has: TensorFlow's calibrator refuses a file with such."""
    nodes = [node for graph in model.subgraphs for node in graph.operators or ()]
    used = {int(node.opcodeIndex) for node in nodes}
    kept = [index for index in range(len(model.operatorCodes)) if index in used]
    numbers = {index: number for number, index in enumerate(kept)}
    for node in nodes:
        # The index of a damaged file may name nothing: it stays so.
        node.opcodeIndex = numbers.get(int(node.opcodeIndex), node.opcodeIndex)
    model.operatorCodes = [model.operatorCodes[index] for index in kept]


class _Builder(flatbuffers.Builder):  # type: ignore[misc]
    """Writes equal texts and vectors of numbers once."""

    def __init__(self) -> None:
        super().__init__(1024)
        self._places: dict[tuple[str, bytes], int] = {}

    def CreateString(self, s: bytes | str, *_: str) -> int:  # noqa: N802
        content = s if isinstance(s, bytes) else s.encode()
        return self._once(("text", content), super().CreateString, content)

    def CreateNumpyVector(self, x: Array) -> int:  # noqa: N802
        return self._once((x.dtype.str, x.tobytes()), super().CreateNumpyVector, x)

    def _once(self, key: tuple[str, bytes], write: Callable[[Any], int], value: Any) -> int:
        if key not in self._places:
            self._places[key] = write(value)
        return self._places[key]


class _Buffer:
    """A `BufferT` whose data is aligned; the generated class does not align it."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def Pack(self, builder: _Builder) -> int:  # noqa: N802
        size = len(self.content)
        builder.StartVector(1, size, ALIGNMENT)
        builder.head -= size
        builder.Bytes[builder.head : builder.head + size] = self.content
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        place: int = schema.BufferEnd(builder)
        return place


class _Once:
    """A table that is written once and then returns its place."""

    def __init__(self, table: Any) -> None:
        self.table = table
        self.place: int | None = None

    def Pack(self, builder: _Builder) -> int:  # noqa: N802
        if self.place is None:
            self.place = self.table.Pack(builder)
        return self.place


def _once(table: Any, seen: dict[Any, _Once]) -> _Once:
    """Return the table, in which all equal tables are replaced by one object."""
    if isinstance(table, _Once):
        return table
    for name, value in vars(table).items():
        if _is_table(value):
            setattr(table, name, _once(value, seen))
        elif isinstance(value, list):
            setattr(table, name, [_once(v, seen) if _is_table(v) else v for v in value])
    key = (type(table), *map(_key, vars(table).values()))
    return seen.setdefault(key, _Once(table))


def _is_table(value: Any) -> bool:
    return hasattr(value, "Pack") and not isinstance(value, _Buffer)


def _key(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.tobytes()
    if isinstance(value, list):
        return tuple(map(_key, value))
    # The text of -0.0 differs from that of 0.0. Equal tables are one object by now.
    return value if hasattr(value, "Pack") else repr(value)
