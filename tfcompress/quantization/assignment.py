"""Which range each tensor of a graph is rounded to."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import keras

from tfcompress.model.graph import Node
from tfcompress.model.keras_private import call_index

from .layer_table import Rule, fixed_output, is_relu, rule_of

__all__ = ["Assignment", "Placement"]


@dataclass(eq=False)
class Placement:
    """What is to be done along a graph.

    Attributes:
        wrapped: Layers to wrap, each with the nodes that belong to the same op, in their order.
        absorbed: Ids of the output tensors of those nodes.
        ranges: Tensor -> the name of the range that it is rounded to where it is made.
        shared: Tensors that only share the range, and do not shape it.
        calls: Range -> how many tensors shape it.
        fixed: Range -> its bounds, where TFLite prescribes them.
        names: Range -> what to call its layer. At an output of the model it is the name of the
            layer that stood there, since losses and metrics go by it.
        ends: Layers to wrap whose output is one of the model's and stays float -> that name.
    """

    wrapped: dict[int, list[Node]] = field(default_factory=dict)
    absorbed: set[int] = field(default_factory=set)
    ranges: dict[int, str] = field(default_factory=dict)
    shared: set[int] = field(default_factory=set)
    calls: dict[str, int] = field(default_factory=dict)
    fixed: dict[str, tuple[float, float]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    ends: dict[int, str] = field(default_factory=dict)

    def absorbs(self, node: Node) -> bool:
        """Whether the node is computed by the wrapper of one before it."""
        return any(key in self.absorbed for key in node.outputs)


class Assignment:
    """Goes along a graph once and fills in the ranges of a placement, by the table in `rules.py`.

    Args:
        graph: From `nodes`.
        placement: With the layers to wrap.
        in_float: Ids of layers whose kernels are not to be quantized.
        nested: Whether the inputs of the graph are rounded already.
    """

    def __init__(
        self, graph: list[Node], placement: Placement, in_float: Collection[int], nested: bool
    ) -> None:
        self.graph = graph
        self.placement = placement
        self.in_float = in_float
        self.nested = nested
        # A tensor's range; None where it is rounded outside this graph, or not at all.
        self.range_of: dict[int, str | None] = {}
        self.owned: set[str] = set()
        self.joined: dict[str, str] = {}
        # What to round, in order: the tensor, its node, its range before joining.
        self.rounded: list[tuple[int, Node, str]] = []
        self.heads = {
            id(chain[-1].call): node.operation
            for node in graph
            if (chain := placement.wrapped.get(id(node.operation)))
        }

    def run(self) -> None:
        """Fill in the placement."""
        for node in self.graph:
            for index, tensor in enumerate(node.tensors):
                self.range_of[node.outputs[index]] = self._range(node, index, tensor)
        placement = self.placement
        for key, node, name in self.rounded:
            root = self._root(name)
            placement.ranges[key] = root
            placement.names.setdefault(root, f"fake_quant_{root}")
            if key not in placement.shared:
                placement.calls[root] = placement.calls.get(root, 0) + 1
            if _names_output(node):
                placement.names[root] = node.name
                placement.wrapped.setdefault(id(self._head(node)), [])
        for node in self.graph:
            if _names_output(node) and node.outputs[0] not in placement.ranges:
                placement.ends[id(self._head(node))] = node.name

    def _range(self, node: Node, index: int, tensor: Any) -> str | None:
        head, key = self._head(node), node.outputs[index]
        rule = rule_of(head)
        if not keras.backend.is_float_dtype(tensor.dtype) or self._is_float(node):
            return None
        if node.call.is_input:
            return None if self.nested else self._own(node, index)
        if isinstance(head, keras.Model) or rule is Rule.ROUNDED or self._waits(node):
            return None
        before = [self.range_of[other] for other in node.inputs]
        if rule is Rule.SAME:
            return before[0] if before else None
        if rule is Rule.JOINED and before and all(name in self.owned for name in before):
            return self._join([str(name) for name in before])
        if rule is Rule.SHARED and before[0] is not None:
            self.placement.shared.add(key)
            self.rounded.append((key, node, before[0]))
            return before[0]
        name = self._own(node, index)
        if rule is Rule.FIXED and (bounds := fixed_output(head)) is not None:
            # Its range is nobody else's.
            self.owned.discard(name)
            self.placement.fixed[name] = bounds
        return name

    def _own(self, node: Node, index: int) -> str:
        number = call_index(node.operation, node.call) if node.calls > 1 else 0
        name = "_".join([node.name, *(str(n) for n in (number, index) if n)])
        self.owned.add(name)
        self.rounded.append((node.outputs[index], node, name))
        return name

    def _join(self, names: list[str]) -> str:
        first, *others = dict.fromkeys(self._root(name) for name in names)
        self.joined.update(dict.fromkeys(others, first))
        return first

    def _root(self, name: str) -> str:
        while name in self.joined:
            name = self.joined[name]
        return name

    def _head(self, node: Node) -> Any:
        """The operation whose wrapper computes the node."""
        return self.heads.get(id(node.call), node.operation)

    def _is_float(self, node: Node) -> bool:
        """Whether the output goes from float to float, so that rounding it would only cost."""
        if not (node.call.is_input or id(self._head(node)) in self.in_float):
            return False
        return all(
            not node.call.is_input if reader is None else id(reader.operation) in self.in_float
            for reader in node.consumers
        )

    def _waits(self, node: Node) -> bool:
        """Whether the next node belongs to the same op, so that there is no tensor in between."""
        follower = node.only_consumer()
        if follower is None:
            return False
        sums = type(node.operation).__name__ in ("Add", "Subtract", "Multiply")
        fused = sums and len(node.inputs) == 2 and is_relu(follower.operation)
        return fused or self.placement.absorbs(follower)


def _names_output(node: Node) -> bool:
    """Whether an output of the model goes by the node's name."""
    return (
        None in node.consumers
        and isinstance(node.operation, keras.layers.Layer)
        and not node.call.is_input
        and node.calls == 1
        and len(node.outputs) == 1
    )
