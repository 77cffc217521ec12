"""The names by which programs run a file. Runs in child processes."""

from __future__ import annotations

from typing import Any

from ai_edge_litert import schema_py_generated as schema

from .graph import Graph

SERVING = b"serving_default"


def sign(graph: Graph) -> None:
    """Give a file without a signature one: its names are those of the tensors.

    Args:
        graph: The only graph of the file, which is changed.
    """
    if graph.model.signatureDefs:
        return
    names = [
        {int(index): graph.name(int(index)) for index in border}
        for border in (graph.tables.inputs, graph.tables.outputs)
    ]
    graph.model.signatureDefs = [signature(SERVING, names[0], names[1])]


def signature(key: bytes, inputs: dict[int, str], outputs: dict[int, str]) -> Any:
    """Return a `SignatureDefT`.

    Args:
        key: Its own name.
        inputs: Tensor -> the name of the input.
        outputs: Tensor -> the name of the output.
    """
    maps = [
        [schema.TensorMapT(name.encode(), index) for index, name in names.items()]
        for names in (inputs, outputs)
    ]
    return schema.SignatureDefT(inputs=maps[0], outputs=maps[1], signatureKey=key)
