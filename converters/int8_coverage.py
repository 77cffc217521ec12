"""What computes in float in a file that should compute in integers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from tfcompress.converters.file.model import GraphOp, Inspection, Node
from tfcompress.converters.file.names import scope_names
from tfcompress.edge.ops import MAC_OPS

LayerOf = Callable[[str], str | None]

_FLOATS = ("float32", "float16", "bfloat16", "float64")


@dataclass(frozen=True)
class FloatOps:
    """The ops of a file that keep it from computing in integers throughout.

    Attributes:
        macs: Ops that multiply and accumulate in float, in the order of execution.
        casts: QUANTIZE and DEQUANTIZE ops between integers and floats inside the graph, in the
            order of execution. Those at the inputs and outputs of the model are not counted.
    """

    macs: tuple[GraphOp, ...] = ()
    casts: tuple[GraphOp, ...] = ()


def float_ops(found: Inspection, layer_of: LayerOf, kept_float: Collection[str] = ()) -> FloatOps:
    """Find the ops that compute in float, with the layers that they come from.

    A QUANTIZE op from one integer scale to another is integer arithmetic and is not counted.

    Args:
        found: The file.
        layer_of: Returns the layer that the name of an op or tensor leads to, or None.
        kept_float: Layers that are in float on purpose: the casts beside them are not counted.
            Defaults to none.

    Returns:
        The ops; both fields are empty if the file computes in integers throughout.
    """
    border = found.subgraphs[0]
    kept = {
        place
        for node in found.nodes
        if node.op not in ("QUANTIZE", "DEQUANTIZE")
        and _named(node, found, layer_of).layer in kept_float
        for place in (*node.inputs, *node.outputs)
    }
    macs, casts = [], []
    for node in found.nodes:
        if node.op in ("QUANTIZE", "DEQUANTIZE") and kept & {node.inputs[0], node.outputs[0]}:
            continue
        if node.op in MAC_OPS and _is_float(found, node.outputs[0]):
            macs.append(node)
        elif node.op == "QUANTIZE":
            if _is_float(found, node.inputs[0]) and node.inputs[0] not in border.inputs:
                casts.append(node)
        elif node.op == "DEQUANTIZE" and node.outputs[0] not in border.outputs:
            casts.append(node)
    return FloatOps(
        tuple(_named(node, found, layer_of) for node in macs),
        tuple(_named(node, found, layer_of) for node in casts),
    )


def _is_float(found: Inspection, place: int) -> bool:
    return found.tensors[place].dtype in _FLOATS


def _named(node: Node, found: Inspection, layer_of: LayerOf) -> GraphOp:
    layers = (layer_of(name) for name in scope_names(node, found))
    return GraphOp(node.op, next((layer for layer in layers if layer is not None), None))
