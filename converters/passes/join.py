"""Several .tflite files -> one with a signature for each. Runs in child processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .flatbuffer import pack, unpack
from .graph import graphs
from .signatures import sign

__all__ = ["join"]

_SUBGRAPHS = "SubgraphIndex"
"""End of the names of options that hold the number of a subgraph, such as the body of a loop."""


def join(contents: Sequence[bytes], keys: Sequence[str]) -> bytes:
    """Put the graphs of several files into one; equal constants are stored once.

    Args:
        contents: Files with one signature each, or none.
        keys: The name of the signature of each in the new file.

    Returns:
        The file.

    Raises:
        Refused: A file keeps data outside its tables.
    """
    first, *others = (
        _named(unpack(content), key) for content, key in zip(contents, keys, strict=True)
    )
    for model in others:
        _append(first, model)
    return pack(first)


def _named(model: Any, key: str) -> Any:
    """Return the model, whose signature and first graph have a name of their own."""
    sign(graphs(model)[0])
    [signature] = model.signatureDefs
    signature.signatureKey = key.encode()
    model.subgraphs[signature.subgraphIndex].name = key.encode()
    return model


def _append(target: Any, model: Any) -> None:
    """Add the graphs of a model to another one, with all that they refer to."""
    numbers = [_code(target, code) for code in model.operatorCodes]
    buffers, subgraphs = len(target.buffers), len(target.subgraphs)
    for graph in model.subgraphs:
        for tensor in graph.tensors or ():
            tensor.buffer += buffers
        for node in graph.operators or ():
            node.opcodeIndex = numbers[node.opcodeIndex]
            for name in vars(node.builtinOptions) if node.builtinOptions else ():
                if name.endswith(_SUBGRAPHS):
                    setattr(
                        node.builtinOptions, name, getattr(node.builtinOptions, name) + subgraphs
                    )
    target.buffers += model.buffers
    target.subgraphs += model.subgraphs
    [signature] = model.signatureDefs
    signature.subgraphIndex += subgraphs
    target.signatureDefs.append(signature)


def _code(target: Any, wanted: Any) -> int:
    """Return the number of an op code, which is added if it is missing."""

    def kind(code: Any) -> tuple[int, Any]:
        return max(code.builtinCode, code.deprecatedBuiltinCode), code.customCode

    for number, code in enumerate(target.operatorCodes):
        if kind(code) == kind(wanted):
            code.version = max(code.version, wanted.version)
            return number
    target.operatorCodes.append(wanted)
    return len(target.operatorCodes) - 1
