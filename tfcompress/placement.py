"""Where TFLite will have an int8 tensor: which range each tensor of a graph is rounded to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import keras
from keras import layers

from . import affine, linear
from .graph import Node, nodes
from .rules import Rule, fixed_output, is_relu, needs_wrapper, rule_of

__all__ = ["Placement", "place"]


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


def place(model: keras.Model, in_float: Collection[int], nested: bool) -> Placement:
    """Decide for one graph; nested models have theirs.

    Args:
        model: A functional or sequential model.
        in_float: Ids of layers whose kernels are not to be quantized.
        nested: Whether the model stands in another one, so that its inputs are rounded already.

    Returns:
        The placement.
    """
    graph = nodes(model)
    placement = Placement()
    for node in graph:
        if not placement.absorbs(node) and _wrappable(node):
            chain = _chain(node)
            placement.wrapped[id(node.operation)] = chain
            placement.absorbed.update(key for link in chain for key in link.outputs)
    _assign_ranges(graph, placement, in_float, nested)
    return placement


def _wrappable(node: Node) -> bool:
    return (
        isinstance(node.operation, keras.layers.Layer)
        and not isinstance(node.operation, keras.Model | layers.InputLayer)
        and needs_wrapper(node.operation)
    )


def _chain(node: Node) -> list[Node]:
    """Batch normalization and ReLU that TFLite computes in the same op."""
    layer = node.operation
    multiplies = linear.is_linear(layer) or isinstance(layer, layers.SeparableConv2D)
    if not (multiplies or affine.is_affine(layer)):
        return []
    if getattr(layer, "activation", None) not in (None, keras.activations.linear):
        return []
    chain: list[Node] = []
    follower = _alone_after(node)
    if (
        follower is not None
        and multiplies
        and isinstance(follower.operation, layers.BatchNormalization)
        and affine.is_affine(follower.operation)
        and (not isinstance(layer, layers.EinsumDense) or len(layer.kernel.shape) == 2)
    ):
        chain.append(follower)
        follower = _alone_after(follower)
    if follower is not None and is_relu(follower.operation):
        chain.append(follower)
    return chain


def _alone_after(node: Node) -> Node | None:
    """The layer that alone reads the output, if both are called once."""
    follower = node.only_consumer()
    if follower is None or node.calls > 1 or follower.calls > 1:
        return None
    return follower if isinstance(follower.operation, keras.layers.Layer) else None


def _assign_ranges(
    graph: list[Node], placement: Placement, in_float: Collection[int], nested: bool
) -> None:
    range_of: dict[
        int, str | None
    ] = {}  # None: rounded somewhere outside this graph, or not at all
    merged: dict[str, str] = {}
    made: list[tuple[int, str]] = []
    owned: set[str] = set()
    ends = {id(chain[-1]): node for node, chain in _chains(graph, placement)}

    def find(name: str) -> str:
        while name in merged:
            name = merged[name]
        return name

    def own(node: Node, key: int, index: int) -> None:
        name = _name(node, index)
        range_of[key] = name
        made.append((key, name))
        owned.add(name)

    for node in graph:
        source = ends.get(id(node), node)
        head = source.operation
        rule = rule_of(head)
        for index, (key, tensor) in enumerate(zip(node.outputs, node.tensors, strict=True)):
            if not keras.backend.is_float_dtype(tensor.dtype):
                range_of[key] = None
            elif node.call.is_input:
                range_of[key] = None
                if not nested and not _stays_float(node, source, in_float):
                    own(node, key, index)
            elif (
                isinstance(head, keras.Model)
                or rule is Rule.ROUNDED
                or _waits(node, placement)
                or _stays_float(node, source, in_float)
            ):
                range_of[key] = None
            elif rule is Rule.FIXED:
                name = _name(node, index)
                bounds = fixed_output(head)
                assert bounds is not None
                placement.fixed[name] = bounds
                range_of[key] = name
                made.append((key, name))
            elif rule is Rule.SAME:
                before = [range_of[k] for k in node.inputs]
                range_of[key] = before[0] if before else None
            elif rule is Rule.SHARED and range_of[node.inputs[0]] is not None:
                name = range_of[node.inputs[0]]
                assert name is not None
                range_of[key] = name
                made.append((key, name))
                placement.shared.add(key)
            elif rule is Rule.JOINED and _joinable(node, range_of, owned):
                names = list(dict.fromkeys(find(str(range_of[k])) for k in node.inputs))
                for name in names[1:]:
                    merged[name] = names[0]
                range_of[key] = names[0]
            else:
                own(node, key, index)
    makers = {key: node for node in graph for key in node.outputs}
    rounded = {key for key, _ in made}
    for node in graph:
        head = ends.get(id(node), node)
        if _ends_model(node) and node.outputs[0] not in rounded:
            placement.ends[id(head.operation)] = node.name
    for key, name in made:
        root = find(name)
        node = makers[key]
        if _ends_model(node):
            placement.names[root] = node.name
            head = ends.get(id(node), node)
            placement.wrapped.setdefault(id(head.operation), [])
        placement.names.setdefault(root, f"fake_quant_{root}")
        placement.ranges[key] = root
        if key not in placement.shared:
            placement.calls[root] = placement.calls.get(root, 0) + 1


def _ends_model(node: Node) -> bool:
    """Whether an output of the model goes by the node's name."""
    return (
        None in node.consumers
        and isinstance(node.operation, keras.layers.Layer)
        and not node.call.is_input
        and node.calls == 1
        and len(node.outputs) == 1
    )


def _chains(graph: list[Node], placement: Placement) -> list[tuple[Node, list[Node]]]:
    by_operation = placement.wrapped
    return [
        (node, by_operation[id(node.operation)])
        for node in graph
        if by_operation.get(id(node.operation))
    ]


def _stays_float(node: Node, head: Node, in_float: Collection[int]) -> bool:
    """Whether the tensor goes from float to float, so that rounding it would only cost."""
    if not (node.call.is_input or id(head.operation) in in_float):
        return False
    ends_there = [] if node.call.is_input else [None]
    return all(
        consumer in ends_there or (consumer is not None and id(consumer.operation) in in_float)
        for consumer in node.consumers
    )


def _waits(node: Node, placement: Placement) -> bool:
    """Whether the next node belongs to the same op, so that there is no tensor in between."""
    follower = node.only_consumer()
    if follower is None:
        return False
    if placement.absorbs(follower):
        return True
    sums = type(node.operation).__name__ in ("Add", "Subtract", "Multiply")
    return is_relu(follower.operation) and sums and len(node.inputs) == 2


def _joinable(node: Node, range_of: Mapping[int, str | None], owned: set[str]) -> bool:
    """Whether all inputs have ranges that may be made one."""
    names = [range_of[key] for key in node.inputs]
    return bool(names) and all(name is not None and name in owned for name in names)


def _name(node: Node, index: int) -> str:
    number = node.operation._inbound_nodes.index(node.call) if node.calls > 1 else 0
    suffix = f"_{number}" if number else ""
    return f"{node.name}{suffix}" + (f"_{index}" if index else "")
