"""Scales between a normalization and those of its readers that have kernels."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from tfcompress.model.graph import Node, nodes
from tfcompress.model.keras_private import LayerScale, renamed
from tfcompress.model.layers import rule_class
from tfcompress.model.rebuild import rebuild

__all__ = ["is_inserted", "with_scales"]

_NORMALIZATIONS = (layers.LayerNormalization, layers.RMSNormalization)
_PROJECTIONS = (
    *(layers.Dense, layers.EinsumDense),
    *(layers.MultiHeadAttention, layers.GroupQueryAttention),
)
_SUFFIX = "_even"


def with_scales(model: keras.Model) -> keras.Model:
    """Return a model with layers of ones around the sums of a residual stream.

    A normalization sees all of a sum, so that the sum cannot be scaled. A projection that writes
    into it can be, with a layer between the two. So can those that read the normalization beside
    the next sum, as in a transformer that normalizes after each sum.

    Args:
        model: A functional or sequential model.

    Returns:
        A model that computes the same with the same weights; nested models stay as they are. It is
        `model` itself if there is no such place.
    """
    graph = nodes(model)
    read = {node.outputs[0] for node in graph if _is_read_in_two_ways(node)}
    written = {node.outputs[0] for node in graph if _is_written_to_sum(node)}
    makers = {key: node.operation for node in graph for key in node.outputs}
    if not read | written:
        return model
    twins: dict[int, Any] = {}
    scales: dict[int, LayerScale] = {}
    scaled: dict[int, Any] = {}

    def scale(key: int, tensor: Any) -> Any:
        layer = makers[key]
        if id(layer) not in scales:
            options = {"name": layer.name + _SUFFIX, "dtype": layer.dtype_policy.name}
            scales[id(layer)] = LayerScale(1.0, int(tensor.shape[-1]), **options)
        if key not in scaled:
            scaled[key] = scales[id(layer)](tensor)
        return scaled[key]

    def call(node: Node, args: Any, kwargs: Any) -> Any:
        if node.call.is_input:
            return args[0]
        operation = node.operation
        if id(operation) not in twins:
            twins[id(operation)] = renamed(operation, operation.name)
        if _kind(node) in _PROJECTIONS:
            given = node.call.arguments
            args, kwargs = keras.tree.map_structure(
                lambda old, new: scale(id(old), new) if id(old) in read else new,
                (given.args, dict(given.kwargs)),
                (args, kwargs),
            )
        outputs = twins[id(operation)](*args, **kwargs)
        return scale(node.outputs[0], outputs) if node.outputs[0] in written else outputs

    return rebuild(model, call, model.name)


def is_inserted(layer: Any) -> bool:
    """Return whether a layer is one that `with_scales` inserts."""
    return isinstance(layer, LayerScale) and layer.name.endswith(_SUFFIX)


def _kind(node: Node) -> type | None:
    is_layer = isinstance(node.operation, layers.Layer) and not node.call.is_input
    return rule_class(node.operation) if is_layer else None


def _is_read_in_two_ways(node: Node) -> bool:
    """Return whether projections and others read a normalization."""
    if _kind(node) not in _NORMALIZATIONS:
        return False
    kinds = [None if reader is None else _kind(reader) for reader in node.consumers]
    return len({kind in _PROJECTIONS for kind in kinds}) == 2


def _is_written_to_sum(node: Node) -> bool:
    """Return whether only a sum reads what a projection gives, which dropout may lie between."""
    if _kind(node) not in _PROJECTIONS or len(node.outputs) != 1:
        return False
    if getattr(node.operation, "activation", None) not in (None, keras.activations.linear):
        return False
    reader = node.only_consumer()
    while reader is not None and _kind(reader) is layers.Dropout:
        reader = reader.only_consumer()
    return (
        reader is not None
        and (_kind(reader) is layers.Add or type(reader.operation).__name__ == "Add")
        and len(reader.inputs) == 2
    )
