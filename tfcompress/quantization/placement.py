"""Placement: what is done along a graph, and which layers make up one TFLite op."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import layers

from tfcompress.model.graph import Node
from tfcompress.model.layers import rule_class

from .layer_table import (
    is_relu,
    needs_wrapper,
    rounds_biases,
)
from .ops import affine, linear

__all__ = ["Placement", "chain_of", "heads", "is_wrapped"]


@dataclass(eq=False)
class Placement:
    """What is done along a graph. Tensors are given by their ids.

    Attributes:
        wrapped: Layer to wrap -> the nodes that belong to the same op, in their order.
        absorbed: Output tensors of those nodes.
        ranges: Tensor -> the name of the range that it is rounded to where it is computed.
        shared: Tensors that share a range and do not shape it.
        calls: Range -> how many tensors shape it.
        entrances: Call of an operation with one range for all inputs, and a tensor that it reads ->
            the range that the tensor is rounded to there, as it has another for its other readers.
        unrounded: Call of an operation in float, and a tensor that it reads as it was before it was
            rounded for others.
        joint: Range of such a tensor -> that range. Where both are about as fine, it is taken for
            both, and the file needs no op between them.
        fixed: Range -> its bounds, where TFLite or the dtype prescribes them.
        names: Range -> the name of its layer. At an output of the model it is the name of what
            stood there, since losses, metrics and the outputs of the file go by it.
        ends: Layer to wrap whose output is one of the model's and stays float -> that name.
        freed: Operations that are no layers and give their names to such a range.
        detached: Ranges of tensors that the converter must be kept from computing in int8.
        integers: Integer tensor that layers compute floats from -> the range of those floats.
        origins: Tensor on an int8 grid -> the tensor that the grid comes from. It is the tensor
            itself where it is rounded, where a composite or a nested model gives it, and at the
            input of a nested model. Otherwise an operation moved its values about.
        wanted: Origins of the tensors that wrapped layers and nested models read.
    """

    wrapped: dict[int, list[Node]] = field(default_factory=dict)
    absorbed: set[int] = field(default_factory=set)
    ranges: dict[int, str] = field(default_factory=dict)
    shared: set[int] = field(default_factory=set)
    calls: dict[str, int] = field(default_factory=dict)
    entrances: dict[tuple[int, int], str] = field(default_factory=dict)
    unrounded: set[tuple[int, int]] = field(default_factory=set)
    joint: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, tuple[float, float]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    ends: dict[int, str] = field(default_factory=dict)
    freed: set[int] = field(default_factory=set)
    detached: set[str] = field(default_factory=set)
    integers: dict[int, str] = field(default_factory=dict)
    origins: dict[int, int] = field(default_factory=dict)
    wanted: set[int] = field(default_factory=set)

    def absorbs(self, node: Node) -> bool:
        """Return whether the node is computed by the wrapper of one before it."""
        return any(key in self.absorbed for key in node.outputs)

    def takes_steps(self, node: Node, in_float: Collection[int]) -> bool:
        """Return whether the node is a wrapped layer that rounds biases by the steps of inputs."""
        key = id(node.operation)
        return key in self.wrapped and key not in in_float and rounds_biases(node.operation)


def is_wrapped(node: Node) -> bool:
    """Return whether a wrapper computes the node."""
    return (
        isinstance(node.operation, keras.layers.Layer)
        and not isinstance(node.operation, keras.Model | layers.InputLayer)
        and needs_wrapper(node.operation, node.call.arguments.args, node.call.arguments.kwargs)
    )


def chain_of(node: Node) -> list[Node]:
    """Return batch normalization and ReLU that TFLite computes in the same op."""
    layer = node.operation
    multiplies = linear.is_linear(layer) or rule_class(layer) is layers.SeparableConv2D
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
        and (rule_class(layer) is not layers.EinsumDense or len(layer.kernel.shape) == 2)
    ):
        chain.append(follower)
        follower = _alone_after(follower)
    if follower is not None and is_relu(follower.operation):
        chain.append(follower)
    return chain


def _alone_after(node: Node) -> Node | None:
    """Return the layer that alone reads the output, if both are called once."""
    follower = node.only_consumer()
    if follower is None or node.calls > 1 or follower.calls > 1:
        return None
    return follower if isinstance(follower.operation, keras.layers.Layer) else None


def heads(graph: Sequence[Node], wrapped: Mapping[int, Sequence[Node]]) -> dict[int, Any]:
    """Return the layer whose wrapper computes a node, by the id of the node's call."""
    return {
        id(chain[-1].call): node.operation
        for node in graph
        if (chain := wrapped.get(id(node.operation)))
    }
