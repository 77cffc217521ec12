"""The rule for each Keras layer: where channels come from, and which weights run over them.

A rule is a function of a `Call`. It returns the labels of the outputs, and notes in `call.coupling`
which axes of weights belong to which units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from keras import layers

from tfcompress.model.keras_private import LayerScale
from tfcompress.model.layers import rule_class
from tfcompress.model.opening.batch import ForEachSample
from tfcompress.model.opening.parameter import Parameter

from . import axes
from .call import Call, Rule, check_activation, keep_all
from .convolutions import conv, conv_transpose, depthwise, global_pool, separable, window
from .normalization import (
    batch_normalization,
    group_normalization,
    layer_normalization,
    layer_scale,
    prelu,
    rescaling,
)
from .sequences import attention, grouped_attention, rnn
from .units import FIXED, Labelled, Labels, fixed

__all__ = ["LAYERS", "is_plain", "rule_of"]


def _dense(call: Call) -> Labels:
    layer = call.operation
    out = call.new_units(layer.units, "units")
    call.member(layer.kernel, 0, "input", call.channels)
    call.member(layer.kernel, 1, "output", out)
    call.member(layer.bias, 0, "parameter", out)
    call.size("units", out)
    check_activation(call, layer.activation, out)
    return (*call.x[:-1], out)


def _einsum_dense(call: Call) -> Labels:
    layer = call.operation
    terms, _, result = layer.equation.replace(" ", "").partition("->")
    source, kernel = terms.split(",")
    if "..." in source:
        names = "".join(c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in layer.equation)
        hidden = names[: len(call.x) - len(source.replace("...", ""))]
        source, result = (term.replace("...", hidden) for term in (source, result))
    letters = dict(zip(source, call.x, strict=True))
    for axis, letter in enumerate(kernel):
        size = int(layer.kernel.shape[axis])
        if letter in letters:
            ids = letters[letter]
            if letter in result or ids is None:
                call.keep((ids,), "the kernel has a part for each of its positions")
                ids = np.full(size, FIXED)
            call.member(layer.kernel, axis, "input", ids)
        else:
            letters[letter] = ids = call.new_units(size, f"units {letter}")
            call.member(layer.kernel, axis, "output", ids)
            # From the end: the axes of an ellipsis are no part of `output_shape`.
            entry = ("output_shape", result.index(letter) - len(result))
            call.coupling.size(layer, entry, ids)
    if layer.bias is not None:
        first = min(result.index(letter) for letter in layer.bias_axes)
        for axis, letter in enumerate(result[first:]):
            ids = letters[letter]
            if ids is not None and letter in layer.bias_axes:
                call.member(layer.bias, axis, "parameter", ids)
    outputs = tuple(letters[letter] for letter in result)
    for ids in outputs:
        if ids is not None:
            check_activation(call, layer.activation, ids)
    return outputs


def _embedding(call: Call) -> Labels:
    layer = call.operation
    out = call.new_units(layer.output_dim, "width")
    call.member(layer.embeddings, 1, "output", out)
    call.size("output_dim", out)
    return (*fixed(call.shapes[0][:-1]), out)


def _reversible_embedding(call: Call) -> Labels:
    layer = call.operation
    if not call.kwargs.get("reverse", call.args[1] if len(call.args) > 1 else False):
        return _embedding(call)
    if layer.tie_weights:
        call.member(layer.embeddings, 1, "input", call.channels)
        call.size("output_dim", call.channels)
    else:
        call.member(layer.reverse_embeddings, 0, "input", call.channels)
    return fixed(call.shapes[0])


def _parameter(call: Call) -> Labels:
    layer = call.operation
    labels = list(fixed(layer.shape))
    if not layer.weight.trainable:  # Positions to look up, for example.
        return tuple(labels)
    for axis, size in enumerate(layer.shape):
        if size > 1:
            labels[axis] = ids = call.new_units(size, f"units {axis}")
            call.member(layer.weight, axis, "parameter", ids)
            call.coupling.size(layer, ("shape", axis), ids)
    return tuple(labels)


def _for_each_sample(call: Call) -> Labels | list[Labels]:
    layer, x = call.operation, call.x
    if tuple(len(ids) for ids in x[1:] if ids is not None) != layer.shape:
        return keep_all(call)
    for axis, ids in enumerate(x[1:]):
        assert ids is not None
        call.coupling.size(layer, ("shape", axis), ids)
    return (None, *x[1:])


def _same(call: Call) -> Labels:
    return call.x


def _activation(call: Call) -> Labels:
    for ids in call.x:
        if ids is not None:
            check_activation(call, call.operation.activation, ids)
    return call.x


def _softmax(call: Call) -> Labels:
    axis = call.operation.axis
    over = [axis] if isinstance(axis, int) else axis
    call.keep(tuple(call.x[i] for i in over), "a softmax sees all of them at once")
    return call.x


def _merge(call: Call) -> Labels:
    # A tensor of fewer axes gets the missing ones after the batch.
    rank = max(len(x) for x in call.first)
    one = (np.full(1, FIXED),)
    return axes.broadcast(
        call.coupling, [(*x[:1], *one * (rank - len(x)), *x[1:]) for x in call.first]
    )


def _concatenate(call: Call) -> Labels:
    return axes.concatenate(call.coupling, call.first, call.operation.axis)


def _reshape(call: Call) -> Labels:
    out = axes.reshape(call.coupling, call.x, call.shapes[0])
    for axis, (ids, size) in enumerate(zip(out[1:], call.operation.target_shape, strict=True)):
        if ids is not None and size != -1:
            call.coupling.size(call.operation, ("target_shape", axis), ids)
    return out


def _flatten(call: Call) -> Labels:
    return axes.reshape(call.coupling, call.x, call.shapes[0])


def _permute(call: Call) -> Labels:
    return (call.x[0], *(call.x[axis] for axis in call.operation.dims))


def _repeat_vector(call: Call) -> Labels:
    return (call.x[0], *fixed(call.shapes[0][1:2]), call.channels)


def _bidirectional(call: Call) -> Labels | list[Labels]:
    layer = call.operation
    forward, backward = layer.forward_layer, layer.backward_layer
    plain = rule_of(forward) is rnn and rule_class(forward) is rule_class(backward)
    if layer.return_state or layer.merge_mode is None or not plain:
        return keep_all(call)
    if forward.units != backward.units:
        return keep_all(call)
    shape = (*call.shapes[0][:-1], forward.units)
    outputs = []
    for name, inner in (("layer", forward), ("backward_layer", backward)):
        part = replace(call, operation=inner, path=f"{call.path}/{inner.name}", shapes=[shape])
        outputs += rnn(part)
        units = outputs[-1][-1]
        assert units is not None, part.path
        call.coupling.size(layer, (name, "config", "units"), units)
    # Keras makes both from one config, with one number of units.
    axes.unite_all(call.coupling, outputs[0], outputs[1], "two directions")
    if layer.merge_mode == "concat":
        return axes.concatenate(call.coupling, outputs, -1)
    return outputs[0]


def _time_distributed(call: Call) -> Labels | list[Labels]:
    inner = call.operation.layer
    rule = rule_of(inner)
    if rule is keep_all:
        return keep_all(call)
    x = Labelled((call.x[0], *call.x[2:]), call.x.key)
    shapes = [(shape[0], *shape[2:]) for shape in call.shapes]
    path = f"{call.path}/{inner.name}"
    part = replace(call, operation=inner, path=path, args=(x,), kwargs={}, shapes=shapes)
    results = rule(part)
    results = results[0] if isinstance(results, list) else results
    for entry, ids in call.coupling.sizes.get(id(inner), {}).items():
        call.coupling.size(call.operation, ("layer", "config", *entry), ids)
    return (results[0], call.x[1], *results[1:])


_SAME = (
    *(layers.ActivityRegularization, layers.AlphaDropout, layers.Dropout, layers.GaussianDropout),
    *(layers.GaussianNoise, layers.Identity, layers.Masking),
    *(layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
    *(layers.ELU, layers.LeakyReLU, layers.ReLU),
    *(layers.RandomBrightness, layers.RandomContrast, layers.RandomFlip, layers.RandomRotation),
    *(layers.RandomTranslation, layers.RandomZoom),
)
_WINDOWS = (
    *(layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D),
    *(layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D),
    *(layers.Cropping1D, layers.Cropping2D, layers.Cropping3D),
    *(layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D),
    *(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D),
    *(layers.CenterCrop, layers.RandomCrop, layers.Resizing),
)
_GLOBAL = (
    *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D),
    *(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
)
_MERGE = (
    *(layers.Add, layers.Average, layers.Maximum, layers.Minimum),
    *(layers.Multiply, layers.Subtract),
)

LAYERS: Mapping[type, Rule] = {
    layers.Dense: _dense,
    layers.EinsumDense: _einsum_dense,
    **dict.fromkeys((layers.Conv1D, layers.Conv2D, layers.Conv3D), conv),
    **dict.fromkeys(
        (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose), conv_transpose
    ),
    **dict.fromkeys((layers.DepthwiseConv1D, layers.DepthwiseConv2D), depthwise),
    **dict.fromkeys((layers.SeparableConv1D, layers.SeparableConv2D), separable),
    layers.Embedding: _embedding,
    layers.ReversibleEmbedding: _reversible_embedding,
    Parameter: _parameter,
    ForEachSample: _for_each_sample,
    layers.MultiHeadAttention: attention,
    layers.GroupQueryAttention: grouped_attention,
    **dict.fromkeys((layers.LSTM, layers.GRU, layers.SimpleRNN), rnn),
    layers.Bidirectional: _bidirectional,
    layers.TimeDistributed: _time_distributed,
    layers.BatchNormalization: batch_normalization,
    layers.LayerNormalization: layer_normalization,
    layers.RMSNormalization: layer_normalization,
    layers.GroupNormalization: group_normalization,
    layers.PReLU: prelu,
    LayerScale: layer_scale,
    layers.Rescaling: rescaling,
    layers.Activation: _activation,
    layers.Softmax: _softmax,
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(_WINDOWS, window),
    **dict.fromkeys(_GLOBAL, global_pool),
    **dict.fromkeys(_MERGE, _merge),
    layers.Concatenate: _concatenate,
    layers.Flatten: _flatten,
    layers.Reshape: _reshape,
    layers.Permute: _permute,
    layers.RepeatVector: _repeat_vector,
}
"""All inputs and outputs of a layer that is not in this table are kept."""


def rule_of(layer: layers.Layer) -> Rule:
    """Return the rule for a layer: `keep_all` if there is none."""
    return LAYERS.get(rule_class(layer), keep_all) if is_plain(layer) else keep_all


def is_plain(layer: layers.Layer) -> bool:
    """Return whether a layer has its channels last, and weights that rules know."""
    # A layer that Keras itself adapted or quantized has other weights.
    odd = any(getattr(layer, name, None) for name in ("lora_enabled", "quantization_mode"))
    return not odd and getattr(layer, "data_format", None) != "channels_first"
