"""One .tflite file -> two, of its first and of its other ops. Runs in child processes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .base import Refused
from .flatbuffer import pack, unpack
from .graph import TYPE_NAMES, Graph, graphs
from .signatures import sign, signature


class Place(NamedTuple):
    """A place to cut a file.

    Attributes:
        at: Number of ops before it.
        op: The op right before it.
        tensor: Name of the tensor that this op gives.
        bytes: Size of what goes from the first part to the second, for a batch of 1.
    """

    at: int
    op: str
    tensor: str
    bytes: int


def places(content: bytes) -> list[Place]:
    """Return the places where a file can be cut: between any two ops.

    Args:
        content: The file.

    Returns:
        The places, in the order of the ops; none for a file of one op.

    Raises:
        Refused: The file has several graphs or signatures, or keeps a state between runs.
    """
    graph = _only_graph(content)
    nodes = graph.tables.operators
    return [
        Place(
            at,
            graph.op(nodes[at - 1]),
            graph.name(int(nodes[at - 1].outputs[0])) if len(nodes[at - 1].outputs) else "",
            sum(_size(graph, index) for index in _crossing(graph, at)),
        )
        for at in range(1, len(nodes))
    ]


def parts(content: bytes, at: int) -> tuple[bytes, bytes]:
    """Cut a file.

    Each part has the inputs and outputs of the whole that its ops read or give, under their names.
    What goes from the first part to the second is an output of the one and an input of the other,
    named `cut_0`, `cut_1` and so on, unless it is an output of the whole and has a name.

    Args:
        content: The file.
        at: Number of ops of the first part.

    Returns:
        The two files.
    """
    return _part(content, at, first=True), _part(content, at, first=False)


def signed(content: bytes) -> bytes:
    """Return the file, with a signature that names its inputs and outputs as its tensors are."""
    return pack(_only_graph(content).model)


def _only_graph(content: bytes) -> Graph:
    model = unpack(content)
    if len(model.subgraphs) > 1 or len(model.signatureDefs or ()) > 1:
        raise Refused("has several graphs or signatures, of which a part would need all")
    graph = graphs(model)[0]
    if any(tensor.isVariable for tensor in graph.tables.tensors):
        raise Refused("keeps a state between runs, which two files do not share")
    sign(graph)
    return graph


def _made(nodes: list[Any]) -> set[int]:
    return {int(index) for node in nodes for index in node.outputs}


def _read(nodes: list[Any]) -> set[int]:
    return {int(index) for node in nodes for index in node.inputs if index >= 0}


def _crossing(graph: Graph, at: int) -> list[int]:
    """Return what the first ops compute and the others read."""
    nodes = graph.tables.operators
    return sorted(_made(nodes[:at]) & _read(nodes[at:]))


def _size(graph: Graph, index: int) -> int:
    try:
        width = np.dtype(TYPE_NAMES[graph[index].type]).itemsize
    except (TypeError, KeyError):
        raise Refused(
            f"holds tensor '{graph.name(index)}', whose size in bytes is not known"
        ) from None
    size: int = width * math.prod(map(int, graph[index].shape))
    return size


def _part(content: bytes, at: int, *, first: bool) -> bytes:
    graph = _only_graph(content)
    model, tables = graph.model, graph.tables
    given, wanted = _names(model.signatureDefs[0].inputs), _names(model.signatureDefs[0].outputs)
    nodes = tables.operators
    between = {
        index: wanted.get(index, f"cut_{number}")
        for number, index in enumerate(_crossing(graph, at))
    }
    tables.operators = nodes[:at] if first else nodes[at:]
    read, made = _read(tables.operators), _made(tables.operators)
    inputs = {index: name for index, name in given.items() if index in read}
    outputs = {index: name for index, name in wanted.items() if index in made}
    if first:
        outputs |= between
    else:
        inputs |= between
    numbers = _drop_unused(graph, {*inputs, *outputs})
    tables.inputs = np.array([numbers[index] for index in inputs], np.int32)
    tables.outputs = np.array([numbers[index] for index in outputs], np.int32)
    old = model.signatureDefs[0]
    names = [{numbers[i]: name for i, name in border.items()} for border in (inputs, outputs)]
    model.signatureDefs = [signature(old.signatureKey, names[0], names[1])]
    return pack(model)


def _names(entries: Any) -> dict[int, str]:
    """Return the names of the inputs or outputs of a signature, by tensor."""
    return {int(entry.tensorIndex): bytes(entry.name).decode() for entry in entries}


def _drop_unused(graph: Graph, border: set[int]) -> dict[int, int]:
    """Remove the tensors that no op needs; return the new number of each that stays."""
    nodes = graph.tables.operators
    inner = {int(i) for node in nodes if node.intermediates is not None for i in node.intermediates}
    used = sorted(_read(nodes) | _made(nodes) | inner | border)
    numbers = {old: new for new, old in enumerate(used)}
    for node in nodes:
        for field in ("inputs", "outputs", "intermediates"):
            found = getattr(node, field)
            if found is not None:
                setattr(node, field, np.array([numbers.get(int(i), -1) for i in found], np.int32))
    graph.tables.tensors = [graph[index] for index in used]
    return numbers
