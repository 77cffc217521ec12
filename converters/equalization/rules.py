"""Follow the scales of channels through a model: the rule for each layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
from keras import layers

from tfcompress.model.dependency.call import Call, Rule, keep_all
from tfcompress.model.dependency.follow import fix_unselected, follow
from tfcompress.model.dependency.layers import is_plain
from tfcompress.model.dependency.units import Labelled, Labels, fixed
from tfcompress.model.filters import Filters
from tfcompress.model.graph import Node, functional
from tfcompress.model.keras_private import LayerScale
from tfcompress.model.layers import rule_class

from . import mixing
from .homogeneous import LAYER_RULES, OPERATION_RULES
from .scaling import Norm, Part, Scaling, scaling_of

__all__ = ["follow_scales"]


def follow_scales(model: keras.Model, filters: Filters = None) -> Scaling:
    """Return which channels of a model share a scale, and which weights change with it.

    Args:
        model: A functional or sequential model.
        filters: Layers whose outputs may be scaled. Defaults to all.

    Returns:
        A `Scaling`. The scale of a unit that has a reason is 1.

    Raises:
        ValueError: `filters` or one of its entries selects no layer that makes channels.
    """
    scaling = Scaling()

    def note(node: Node, path: str, given: list[Labelled], results: list[Labels]) -> None:
        reader = node.only_consumer()
        layer, ids = node.operation, results[0][-1]
        if ids is None or reader is None or rule_class(layer) not in _FOLDED:
            return
        if isinstance(reader.operation, layers.BatchNormalization) and layer.activation in _LINEAR:
            scaling.folded.append(ids)
            scaling.fix(ids, f"it is folded into {reader.name}")

    inputs = [fixed(tensor.shape) for tensor in functional(model).inputs]
    for labels in follow(scaling, model, inputs, _rule_of, note):
        for ids in labels:
            scaling.fix(ids, "it is an output of the model")
    fix_unselected(scaling, model, filters, "layer that makes channels")
    return scaling


def _rule_of(operation: Any) -> Rule:
    if not isinstance(operation, layers.Layer):
        return OPERATION_RULES.get(type(operation).__name__, keep_all)
    return _RULES.get(rule_class(operation), keep_all) if is_plain(operation) else keep_all


def _batch_normalization(call: Call) -> Labels | list[Labels]:
    layer, scaling = call.operation, scaling_of(call)
    if layer.axis not in (-1, len(call.x) - 1):
        return keep_all(call)
    call.keep(call.x[1:-1], "an offset is added along it")
    out = call.new_units(len(call.channels), "channels")
    scaling.norm(Norm(layer, call.channels, out))
    scaling.read(call.path, call.x, call.channels)
    return (*fixed(call.shapes[0][:-1]), out)


def _layer_normalization(call: Call) -> Labels:
    """Scale what a normalization gives by its factors; what it reads goes in as it is."""
    layer = call.operation
    call.keep(call.x, "a normalization sees all of it")
    last = len(call.x) - 1
    axis = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    names = ("scale",) if isinstance(layer, layers.RMSNormalization) else ("gamma", "beta")
    weights = [getattr(layer, name, None) for name in names]
    size = call.shapes[0][-1]
    if weights[0] is None or size is None or [i % (last + 1) for i in axis] != [last]:
        return fixed(call.shapes[0])
    out = call.new_units(size, "channels")
    for weight in weights:
        if weight is not None:
            scaling_of(call).part(Part(layer, weight, out, False))
    return (*fixed(call.shapes[0][:-1]), out)


def _layer_scale(call: Call) -> Labels:
    layer, scaling = call.operation, scaling_of(call)
    call.keep(call.x[1:-1], "it is scaled along another axis")
    out = call.new_units(len(call.channels), "channels")
    scaling.part(Part(layer, layer.gamma, call.channels, True))
    scaling.part(Part(layer, layer.gamma, out, False))
    scaling.read(call.path, call.x, call.channels)
    return (*fixed(call.shapes[0][:-1]), out)


def _time_distributed(call: Call) -> Labels | list[Labels]:
    inner = call.operation.layer
    rule = _rule_of(inner)
    if rule is keep_all:
        return keep_all(call)
    call.keep(call.x[1:2], "a layer is called for each of its positions")
    x = Labelled((call.x[0], *call.x[2:]), call.x.key)
    shapes = [(shape[0], *shape[2:]) for shape in call.shapes]
    path = f"{call.path}/{inner.name}"
    results = rule(replace(call, operation=inner, path=path, args=(x,), kwargs={}, shapes=shapes))
    results = results[0] if isinstance(results, list) else results
    time = fixed(call.shapes[0][1:2])
    return (results[0], *time, *results[1:])


_LINEAR = (None, keras.activations.linear)
_FOLDED = (
    *(layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D),
    *(layers.DepthwiseConv1D, layers.DepthwiseConv2D),
    *(layers.SeparableConv1D, layers.SeparableConv2D),
    *(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
)

_RULES: Mapping[type, Rule] = {
    **LAYER_RULES,
    layers.Dense: mixing.dense,
    layers.EinsumDense: mixing.einsum_dense,
    **dict.fromkeys((layers.Conv1D, layers.Conv2D, layers.Conv3D), mixing.conv),
    **dict.fromkeys(
        (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
        mixing.conv_transpose,
    ),
    **dict.fromkeys((layers.DepthwiseConv1D, layers.DepthwiseConv2D), mixing.depthwise),
    **dict.fromkeys((layers.SeparableConv1D, layers.SeparableConv2D), mixing.separable),
    layers.Embedding: mixing.embedding,
    **dict.fromkeys((layers.LSTM, layers.GRU, layers.SimpleRNN), mixing.rnn),
    layers.Bidirectional: mixing.bidirectional,
    **dict.fromkeys((layers.MultiHeadAttention, layers.GroupQueryAttention), mixing.attention),
    layers.BatchNormalization: _batch_normalization,
    layers.LayerNormalization: _layer_normalization,
    layers.RMSNormalization: _layer_normalization,
    LayerScale: _layer_scale,
    layers.TimeDistributed: _time_distributed,
}
