"""`place`: which range each tensor of a graph is rounded to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import keras
from keras import layers

from tfcompress.model import keras_private
from tfcompress.model.graph import Node, is_graph, nodes
from tfcompress.model.keras_private import LayerScale
from tfcompress.model.layers import rule_class

from .float_flow import float_flow
from .layer_table import Rule, fixed_output, has_rule, is_relu, rule_of
from .ops import affine, linear
from .placement import Placement, chain_of, heads, is_wrapped
from .single_op import trace

__all__ = ["place"]


def place(
    model: keras.Model, in_float: Collection[int], nested: bool, calls: Counter[int]
) -> Placement:
    """Decide what is done along one graph; nested models have placements of their own.

    Args:
        model: A functional or sequential model.
        in_float: Ids of layers whose kernels are not quantized.
        nested: Whether the model is part of another one, so that its inputs are rounded already.
        calls: Id of each operation -> how often this and all other graphs call it.

    Returns:
        The placement.
    """
    graph = nodes(model)
    placement = Placement()
    for node in graph:
        node.calls = calls[id(node.operation)]
    for node in graph:
        scales = isinstance(node.operation, LayerScale) and id(node.operation) in in_float
        if not placement.absorbs(node) and not scales and is_wrapped(node):
            chain = chain_of(node)
            placement.wrapped[id(node.operation)] = chain
            placement.absorbed.update(key for link in chain for key in link.outputs)
    _Assignment(graph, placement, in_float, nested).run()
    placement.wanted = {
        placement.origins[key]
        for node in graph
        if placement.takes_steps(node, in_float) or is_graph(node.operation)
        for key in node.inputs
        if key in placement.origins
    }
    return placement


class _Assignment:
    """Goes along a graph once and fills in the ranges of a placement, by `layer_table`."""

    def __init__(
        self, graph: list[Node], placement: Placement, in_float: Collection[int], nested: bool
    ) -> None:
        self.graph = graph
        self.placement = placement
        self.in_float = in_float
        self.nested = nested
        # Tensor -> range; None where it is rounded outside this graph, or not at all.
        self.range_of: dict[int, str | None] = {}
        self.owned: set[str] = set()
        self.makers: dict[str, Node] = {}
        self.joined: dict[str, str] = {}
        self.groups: set[str] = set()
        # What to round, in order: the tensor, its range before joining.
        self.rounded: list[tuple[int, str]] = []
        self.heads = heads(graph, placement.wrapped)
        self.flow = float_flow(graph, self.heads, in_float, nested)
        self.placement.unrounded.update(self.flow.unrounded)

    def run(self) -> None:
        """Fill in the placement."""
        for node in self.graph:
            for index, tensor in enumerate(node.tensors):
                self.range_of[node.outputs[index]] = self._range(node, index, tensor)
        placement = self.placement
        for key, name in self.rounded:
            root = self._root(name)
            placement.ranges[key] = root
            placement.origins[key] = key
            placement.names.setdefault(root, f"fake_quant_{root}")
            if key not in placement.shared:
                placement.calls[root] = placement.calls.get(root, 0) + 1
        placement.joint = {name: self._root(other) for name, other in placement.joint.items()}
        placement.entrances = {k: self._root(name) for k, name in placement.entrances.items()}
        for _, root in {(key, root) for (_, key), root in placement.entrances.items()}:
            placement.calls[root] = placement.calls.get(root, 0) + 1
        for node in self.graph:
            for key, tensor in zip(node.outputs, node.tensors, strict=True):
                if keras.backend.is_float_dtype(tensor.dtype) and key not in placement.origins:
                    self._trace(node, key)

    def _trace(self, node: Node, key: int) -> None:
        """Note where the grid of a tensor comes from that is not rounded in this graph."""
        origins, head = self.placement.origins, self._head(node)
        rule = rule_of(head)
        if node.call.is_input:
            if self.nested:
                origins[key] = key
        elif id(node) in self.flow.kept:
            return
        elif isinstance(head, keras.Model):
            origins[key] = key
        elif rule is Rule.ROUNDED:
            if id(head) not in self.in_float:
                origins[key] = key
        elif rule in (Rule.SAME, Rule.JOINED) and node.inputs and node.inputs[0] in origins:
            # A joined tensor that is not rounded has the range of all its inputs.
            origins[key] = origins[node.inputs[0]]

    def _range(self, node: Node, index: int, tensor: Any) -> str | None:
        head, key = self._head(node), node.outputs[index]
        rule = rule_of(head)
        if not keras.backend.is_float_dtype(tensor.dtype):
            if any(self._widens(reader, key) for reader in node.consumers):
                self._own_integers(node, index, tensor)
            return None
        discretized = node.call.is_input and all(map(_discretizes, node.consumers))
        if discretized or id(node) in self.flow.silent:
            return None
        if node.call.is_input:
            return None if self.nested else self._own(node, index)
        if isinstance(head, keras.Model) or rule is Rule.ROUNDED or self._waits(node):
            return None
        before = [self.range_of[other] for other in self._floats(node)]
        if rule is Rule.SAME:
            return before[0] if before else None
        if id(node) in self.flow.kept:
            name = self._own(node, index)
            wrapped = id(node.operation) in self.placement.wrapped  # which keeps it in float itself
            reads = {(id(node.call), other) for other in node.inputs}
            if not wrapped and not reads & self.flow.unrounded:
                self.placement.detached.add(name)
            return name
        if rule is Rule.JOINED and len(before) > 1 and all(name in self.owned for name in before):
            return self._join(node, [str(name) for name in before])
        # A constant beside the only tensor is rounded to its range.
        if (rule is Rule.SHARED or (rule is Rule.JOINED and len(before) == 1)) and before[0]:
            self.placement.shared.add(key)
            self.rounded.append((key, before[0]))
            return before[0]
        given, traced = node.call.arguments, None
        if not has_rule(head):
            traced = trace(head, given.args, given.kwargs)
            if not traced.gives_floats:  # Keras believes that any Lambda gives floats, for example.
                return None
        name = self._own(node, index)
        if traced is not None and traced.must_stay_float:
            self.placement.detached.add(name)
        if rule is Rule.FIXED and (bounds := fixed_output(head)) is not None:
            # No other tensor has its range.
            self.owned.discard(name)
            self.placement.fixed[name] = bounds
        return name

    def _widens(self, reader: Node | None, key: int) -> bool:
        """Return whether a node computes floats from an integer tensor, in one int8 op."""
        return (
            reader is not None
            and reader.inputs[:1] == [key]
            and self.placement.takes_steps(reader, self.in_float)
        )

    def _own_integers(self, node: Node, index: int, tensor: Any) -> None:
        placement, key, name = self.placement, node.outputs[index], _range_name(node, index)
        placement.integers[key], placement.origins[key] = name, key
        placement.names[name] = f"fake_quant_{name}"
        if tensor.dtype in _BYTES:
            placement.fixed[name] = _BYTES[tensor.dtype]

    def _own(self, node: Node, index: int) -> str:
        name = self._name(node, index)
        self.rounded.append((node.outputs[index], name))
        return name

    def _name(self, node: Node, index: int) -> str:
        name = _range_name(node, index)
        self.owned.add(name)
        self.makers[name] = node
        return name

    def _join(self, node: Node, names: list[str]) -> str:
        """Return the one range of the inputs of a node, which have the ranges `names` so far.

        An input that others read keeps its range for them, and enters here by the one range.
        """
        apart = {n for n in names if n not in self.groups and _read_elsewhere(self.makers[n])}
        whole = [self._root(n) for n in names if n not in apart] or [self._name(node, 0)]
        first, *others = dict.fromkeys(whole)
        self.joined.update(dict.fromkeys(others, first))
        self.groups.update(whole)
        if apart:
            for key, name in zip(self._floats(node), names, strict=True):
                if name in apart:
                    self.placement.entrances[id(node.call), key] = first
                    self.placement.joint.setdefault(name, first)
            self.placement.shared.add(node.outputs[0])
            self.rounded.append((node.outputs[0], first))
        return first

    def _floats(self, node: Node) -> list[int]:
        """Return the inputs of a node that share a range: not the condition of a `where`."""
        if type(node.operation).__name__ != "Where":
            return node.inputs
        tensors = zip(node.inputs, node.call.input_tensors, strict=True)
        return [key for key, x in tensors if keras.backend.is_float_dtype(x.dtype)]

    def _root(self, name: str) -> str:
        while name in self.joined:
            name = self.joined[name]
        return name

    def _head(self, node: Node) -> Any:
        """Return the operation whose wrapper computes the node."""
        return self.heads.get(id(node.call), node.operation)

    def _waits(self, node: Node) -> bool:
        """Return whether the next node belongs to the same op: there is no tensor in between."""
        follower = node.only_consumer()
        if follower is None or id(node) in self.flow.kept:
            return False
        if self._is_masked_softmax(follower):
            return True
        sums = type(node.operation).__name__ in ("Add", "Subtract", "Multiply")
        fused = (sums and len(node.inputs) == 2) or self._is_product(node)
        return (fused and is_relu(follower.operation)) or self.placement.absorbs(follower)

    def _is_masked_softmax(self, node: Node) -> bool:
        """Return whether a node rounds what it is given by itself, with room for what is masked."""
        kind = rule_class(node.operation)
        return kind is layers.Softmax and id(node.operation) in self.placement.wrapped

    def _is_product(self, node: Node) -> bool:
        """Return whether the output comes from a linear op without an activation."""
        head = self._head(node)
        activation = getattr(head, "activation", keras.activations.linear)
        if is_relu(node.operation) or id(head) in self.in_float:
            return False
        return activation is keras.activations.linear and (
            linear.is_linear(head) or affine.is_affine(head)
        )


def _read_elsewhere(node: Node) -> bool:
    """Return whether anything but an operation that joins ranges reads the output, moved or not."""
    for reader in node.consumers:
        if reader is None or reader.call.is_input:
            return True
        rule = rule_of(reader.operation)
        if rule is Rule.SAME and len(reader.outputs) == 1 and not _read_elsewhere(reader):
            continue
        if rule is not Rule.JOINED or len(reader.inputs) < 2:
            return True
    return False


_BYTES = {"uint8": (0.0, 255.0), "int8": (-128.0, 127.0)}


def _range_name(node: Node, index: int) -> str:
    number = keras_private.call_index(node.operation, node.call) if node.calls > 1 else 0
    return "_".join([node.name, *(str(n) for n in (number, index) if n)])


def _discretizes(reader: Node | None) -> bool:
    """Return whether a node makes categories of floats, which must not be rounded before."""
    if reader is None:
        return False
    floats = any(keras.backend.is_float_dtype(tensor.dtype) for tensor in reader.tensors)
    return not floats or rule_class(reader.operation) is layers.Discretization
