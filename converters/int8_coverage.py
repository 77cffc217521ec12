"""What stayed float in a file that was asked to be int8."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras

from tfcompress.converters.file.layers import layer_at
from tfcompress.edge.ops import MAC_OPS

if TYPE_CHECKING:
    from tfcompress.converters.file.read import Inspection, Node

_MULTIPLIES = re.compile("conv|matmul|depthwise|einsum|dot", re.IGNORECASE)
_FLOATS = ("float32", "float16", "bfloat16", "float64")


@dataclass(frozen=True)
class GraphOp:
    """An op of the file and the Keras layer that it comes from; None if that cannot be told."""

    op: str
    layer: str | None

    def __str__(self) -> str:
        return f"{self.op} of layer '{self.layer}'" if self.layer else self.op


def float_macs(found: Inspection, model: keras.Model) -> tuple[GraphOp, ...]:
    """The ops that multiply and add in float, in the order of execution."""
    return tuple(
        _named(node, found, model)
        for node in found.nodes
        if node.op in MAC_OPS and _is_float(found, node.outputs[0])
    )


def quantization_steps(found: Inspection, model: keras.Model) -> tuple[GraphOp, ...]:
    """QUANTIZE from float and DEQUANTIZE to float, but those at the model's border.

    Going from one int8 scale to another (QUANTIZE of an int8 tensor) is integer arithmetic and is
    not counted.
    """
    border = found.subgraphs[0]
    return tuple(
        _named(node, found, model)
        for node in found.nodes
        if (
            node.op == "QUANTIZE"
            and _is_float(found, node.inputs[0])
            and node.inputs[0] not in border.inputs
        )
        or (node.op == "DEQUANTIZE" and node.outputs[0] not in border.outputs)
    )


def _is_float(found: Inspection, place: int) -> bool:
    return found.tensors[place].dtype in _FLOATS


def _named(node: Node, found: Inspection, model: keras.Model) -> GraphOp:
    layers = (layer_at(model, name) for name in scope_names(node, found))
    return GraphOp(node.op, next((layer for layer in layers if layer is not None), None))


def scope_names(node: Node, found: Inspection) -> Iterator[str]:
    """Names that may tell which layer an op comes from, the best first.

    An op is named by its output; the file's own outputs have none that tells, so by its inputs'
    then. A fused op's name joins the names of its parts: of conv;relu the one that multiplies is
    meant.

    Args:
        node: The op.
        found: The file that it is in.

    Yields:
        Names of tensors, the parts of a joined one in the order in which they tell.
    """
    for place in (*node.outputs, *reversed(node.inputs)):
        parts = found.tensors[place].name.split(";")
        if node.op in MAC_OPS:
            parts.sort(key=lambda part: not _MULTIPLIES.search(part.rsplit("/", 1)[-1]))
        yield ";".join(parts)
