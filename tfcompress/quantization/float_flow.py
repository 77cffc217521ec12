"""`float_flow`: what goes from float to float in a graph, so that rounding it only costs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from tfcompress.model.graph import Node, functional, is_graph, nodes
from tfcompress.model.kernels import kernels_of
from tfcompress.model.layers import rule_class

from .layer_table import Rule, float_reason, rule_of

__all__ = ["FloatFlow", "exact_nodes", "float_flow"]


@dataclass(frozen=True)
class FloatFlow:
    """Where a graph computes in float. Nodes are given by their ids.

    Attributes:
        silent: Nodes whose outputs are not rounded.
        kept: Operations without kernels that are kept in float on request.
        unrounded: Call and tensor that it reads -> for such an operation that reads a tensor of
            another one in float, which others read in int8.
    """

    silent: set[int]
    kept: set[int]
    unrounded: set[tuple[int, int]]


def float_flow(
    graph: Sequence[Node], heads: Mapping[int, Any], in_float: Collection[int], nested: bool
) -> FloatFlow:
    """Find what a graph computes from floats and for floats.

    Args:
        graph: The nodes, in order.
        heads: The layer whose wrapper computes a node, by the id of the node's call.
        in_float: Ids of layers and operations that are kept in float on request.
        nested: Whether the model is part of another one.

    Returns:
        The nodes and tensors.
    """
    return _Finder(graph, heads, in_float, nested).find()


class _Finder:
    def __init__(
        self,
        graph: Sequence[Node],
        heads: Mapping[int, Any],
        in_float: Collection[int],
        nested: bool,
    ) -> None:
        self.graph = graph
        self.heads = heads
        self.in_float = in_float
        self.nested = nested
        self.makers = {key: node for node in graph for key in node.outputs}
        self.kept = {id(node) for node in graph if self._is_kept(node)}

    def find(self) -> FloatFlow:
        sources: set[int] = set()
        for node in self.graph:
            if (
                node.call.is_input
                or id(self._head(node)) in self.in_float
                or (_moves(node) and sources.issuperset(node.inputs))
            ):
                sources.update(node.outputs)
        silent: set[int] = set()
        for node in reversed(self.graph):
            ends = (
                not (node.call.is_input or self.nested)
                if reader is None
                else self._is_float(reader, node) or id(reader) in silent
                for reader in node.consumers
            )
            if sources.issuperset(node.outputs) and all(ends):
                silent.add(id(node))
        unrounded = {
            (id(node.call), key)
            for node in self.graph
            if id(node) in self.kept
            for key in node.inputs
            if self._is_made_in_float(self.makers[key])
        }
        return FloatFlow(silent | exact_nodes(self.graph), self.kept, unrounded)

    def _head(self, node: Node) -> Any:
        return self.heads.get(id(node.call), node.operation)

    def _is_kept(self, node: Node) -> bool:
        operation = node.operation
        if id(operation) not in self.in_float or rule_of(operation) in (Rule.SAME, Rule.NONE):
            return False
        return not isinstance(operation, keras.layers.Layer) or not kernels_of(operation)

    def _is_made_in_float(self, node: Node) -> bool:
        if id(node.operation) in self.in_float:
            return True
        given = node.call.arguments
        if node.call.is_input or is_graph(node.operation):
            return False
        return float_reason(node.operation, given.args, given.kwargs) is not None

    def _is_float(self, reader: Node, node: Node) -> bool:
        """Return whether the layer, or those of a nested model, that read a node are in float."""
        operation, given = reader.operation, reader.call.arguments
        if not is_graph(operation):
            if id(operation) in self.in_float:
                return True
            if id(node) not in self.kept:
                return False
            return float_reason(operation, given.args, given.kwargs) is not None
        inner, inputs = nodes(operation), functional(operation).inputs
        read = {id(x) for key, x in zip(reader.inputs, inputs, strict=True) if key in node.outputs}
        return all(
            after is not None and self._is_float(after, entry)
            for entry in inner
            if read.intersection(entry.outputs)
            for after in entry.consumers
        )


def _moves(node: Node) -> bool:
    """Return whether the node moves the values of its inputs about."""
    return bool(node.inputs) and rule_of(node.operation) in (Rule.SAME, Rule.JOINED)


def exact_nodes(graph: Sequence[Node]) -> set[int]:
    """Return the ids of nodes whose outputs become integers: 2.0 must not be rounded to 1.99."""
    found: set[int] = set()
    for node in reversed(graph):
        kept = type(node.operation).__name__ in _ELEMENTWISE or rule_of(node.operation) is Rule.SAME
        if kept and node.consumers and all(r and _jumps(r, found) for r in node.consumers):
            found.add(id(node))
    return found


def _jumps(reader: Node, exact: Collection[int]) -> bool:
    """Return whether a value that is a little lower may become the next integer below."""
    if type(reader.operation).__name__ == "Cast":
        return "int" in reader.tensors[0].dtype
    return (
        id(reader) in exact
        or type(reader.operation).__name__ in _JUMPING
        or rule_class(reader.operation) in _OF_CATEGORIES
    )


_JUMPING = {"Ceil", "Floor", "FloorDivide", "Mod", "OneHot", "Round", "Trunc"}
_ELEMENTWISE = {*_JUMPING, "Absolute", "Add", "Clip", "Divide", "Maximum", "Minimum", "Multiply",
                "Negative", "Relu", "Relu6", "Subtract", "TrueDivide"}  # fmt: skip
_OF_CATEGORIES = {layers.CategoryEncoding, layers.Discretization, layers.Embedding}
