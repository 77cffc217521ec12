"""What becomes of a graph: which layers make up one TFLite op, and where its int8 tensors are."""

from __future__ import annotations

from collections.abc import Collection

import keras
from keras import layers

from tfcompress.model.graph import Node, nodes

from .assignment import Assignment, Placement
from .layer_table import is_relu, needs_wrapper
from .ops import affine, linear

__all__ = ["Placement", "place"]


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
    Assignment(graph, placement, in_float, nested).run()
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
