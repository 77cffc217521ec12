"""The sums of a residual stream, which normalizations read."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from tfcompress.model.graph import Node, all_nodes
from tfcompress.model.keras_private import LayerScale
from tfcompress.model.layers import rule_class

from .layer_table import Rule, rule_of
from .single_op import trace

__all__ = ["residual_sums"]

_NORMALIZE = (
    *(layers.GroupNormalization, layers.LayerNormalization),
    *(layers.RMSNormalization, layers.UnitNormalization),
)
_LAYERS = (layers.Add, layers.Subtract)
_OPERATIONS = {"Add", "Subtract"}


def residual_sums(model: keras.Model) -> set[int]:
    """Return the sums that normalizations read, and the sums that these are made of.

    Layers that scale channels before sums and after normalizations, as `equalize` inserts them,
    count, too.

    >>> x = keras.Input((4,))
    >>> y = layers.Add(name="sum")([x, layers.Dense(4)(x)])
    >>> model = keras.Model(x, layers.LayerNormalization()(y))
    >>> residual_sums(model) == {id(model.get_layer("sum"))}
    True

    Args:
        model: A functional or sequential model.

    Returns:
        Ids of layers and operations.
    """
    makers = {key: node for node in all_nodes(model) for key in node.outputs}
    normalizing = [node for node in all_nodes(model) if _normalizes(node)]
    ahead = [key for node in normalizing for key in node.inputs]
    found = {
        id(reader.operation)
        for node in normalizing
        for reader in node.consumers
        if reader is not None and isinstance(reader.operation, LayerScale)
    }
    while ahead:
        node = makers.get(ahead.pop())
        if node is None or id(node.operation) in found:
            continue
        if _is_sum(node.operation):
            found.add(id(node.operation))
            ahead += node.inputs
        elif isinstance(node.operation, LayerScale):
            found.add(id(node.operation))
        elif not node.call.is_input and rule_of(node.operation) is Rule.SAME:
            ahead += node.inputs[:1]
    return found


def _is_sum(operation: Any) -> bool:
    if isinstance(operation, keras.layers.Layer):
        return rule_class(operation) in _LAYERS
    return type(operation).__name__ in _OPERATIONS


def _normalizes(node: Node) -> bool:
    """Return whether a layer divides a tensor by the root of its mean square."""
    layer, given = node.operation, node.call.arguments
    if not isinstance(layer, keras.layers.Layer) or node.call.is_input:
        return False
    kind = rule_class(layer)
    if kind.__module__.partition(".")[0] == "keras":
        return kind in _NORMALIZE
    if len(node.inputs) != 1 or len(layer.weights) > 2:
        return False
    return {"Mean", "Rsqrt"}.issubset(trace(layer, given.args, given.kwargs).ops)
