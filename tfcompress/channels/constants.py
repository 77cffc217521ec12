"""Channels whose value is a constant, whatever the inputs of the model are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from tfcompress.cost.summary import ROUNDING
from tfcompress.model.dependency.call import mixes_channels
from tfcompress.model.graph import Node, functional, is_graph, nodes
from tfcompress.model.layers import rule_class

__all__ = ["Constant", "constants"]

_MIXING = (layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_ONE_BY_ONE = (
    *(layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.PReLU),
    *(layers.BatchNormalization, layers.Dropout, layers.Identity, layers.ActivityRegularization),
    *(layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
    *(layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D),
    *(layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D),
    *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D),
    *(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
    *(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D),
    *(layers.Cropping1D, layers.Cropping2D, layers.Cropping3D),
    *(layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D),
)
_MERGING = (
    *(layers.Add, layers.Average, layers.Maximum, layers.Minimum),
    *(layers.Multiply, layers.Subtract),
)


@dataclass(frozen=True, eq=False)
class Constant:
    """What is known of the channels of a tensor.

    Attributes:
        known: For each channel, whether it has one value, at all positions and for all inputs.
        value: For each channel, this value; 0 where it is not known.
    """

    known: npt.NDArray[np.bool_]
    value: npt.NDArray[np.float64]


def constants(model: keras.Model) -> dict[int, Constant]:
    """Return what is known of the tensors of a model, and of the models in it.

    A channel is constant where all weights that make it are zero, or read constants only, and as
    long as each layer after it hands channels on one by one. Each layer computes the value itself,
    from an input that holds the constants, so that a border that padding makes is seen.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "relu")])
    >>> _ = model.layers[0].kernel.assign([[0, 1]] * 4)
    >>> _ = model.layers[0].bias.assign([3, 3])
    >>> found = constants(model)[id(model.outputs[0])]
    >>> found.known, found.value
    (array([ True, False]), array([3., 0.]))

    Args:
        model: A functional or sequential model.

    Returns:
        A `Constant` for each tensor, by `id(tensor)`. A model that is called twice has those of
        both calls.
    """
    found: dict[int, Constant] = {}
    _follow(model, [_unknown(tensor) for tensor in functional(model).inputs], found)
    return found


def _follow(
    model: keras.Model, inputs: Sequence[Constant], found: dict[int, Constant]
) -> list[Constant]:
    """Note what is known of the tensors of a model, and return it for its outputs."""
    graph = functional(model)
    now = {id(t): known for t, known in zip(graph.inputs, inputs, strict=True)}
    for node in nodes(model):
        if node.call.is_input:
            continue
        given = [now[key] for key in node.inputs]
        if is_graph(node.operation):
            results = _follow(node.operation, given, found)
        else:
            results = [_after(node, given)]
            if results[0] is None or len(node.tensors) > 1:
                results = [_unknown(tensor) for tensor in node.tensors]
        now.update(zip(node.outputs, results, strict=True))
    for key, known in now.items():
        found[key] = _both(found[key], known) if key in found else known
    return [now[id(tensor)] for tensor in graph.outputs]


def _unknown(tensor: Any) -> Constant:
    size = (tensor.shape[-1] if len(tensor.shape) else None) or 0
    return Constant(np.zeros(size, bool), np.zeros(size))


def _both(a: Constant, b: Constant) -> Constant:
    known = a.known & b.known & (a.value == b.value)
    return Constant(known, np.where(known, a.value, 0.0))


def _after(node: Node, given: Sequence[Constant]) -> Any:
    """Return what is known of a layer's output, or None if nothing is."""
    layer, inputs = node.operation, node.call.input_tensors
    shapes = [tuple(tensor.shape[1:]) for tensor in inputs]
    odd = getattr(layer, "data_format", None) == "channels_first"
    if odd or any(None in shape or not shape for shape in shapes):
        return None
    if mixes_channels(getattr(layer, "activation", None)):
        return None
    kind = rule_class(layer)
    if kind in _MIXING and getattr(layer, "groups", 1) == 1:
        weights = np.abs(keras.ops.convert_to_numpy(layer.kernel)).astype(np.float64)
        used = weights > ROUNDING**2 * weights.max(initial=0)
        reads = used.reshape(-1, *used.shape[-2:]).any(0)
        known = ~reads[~given[0].known].any(0)
    elif kind in _DEPTHWISE:
        known = np.repeat(given[0].known, layer.depth_multiplier)
    elif kind in _MERGING and len({len(one.known) for one in given}) == 1:
        known = np.logical_and.reduce([one.known for one in given])
    elif kind is layers.Concatenate and layer.axis in (-1, len(shapes[0])):
        known = np.concatenate([one.known for one in given])
    elif kind is layers.Flatten:
        known = np.tile(given[0].known, int(np.prod(shapes[0][:-1])))
    elif kind in _ONE_BY_ONE and getattr(layer, "axis", -1) in (-1, len(shapes[0])):
        known = given[0].known
    else:
        return None
    return _computed(layer, shapes, given, known) if known.any() else None


def _computed(
    layer: Any, shapes: list[Any], given: Sequence[Constant], known: npt.NDArray[np.bool_]
) -> Constant:
    """Return the values that a layer computes of constants, where they are equal everywhere."""
    arrays = [
        np.broadcast_to(one.value.astype("float32"), (1, *shape))
        for one, shape in zip(given, shapes, strict=True)
    ]
    outputs = layer(arrays if len(arrays) > 1 else arrays[0], training=False)
    output = np.asarray(keras.ops.convert_to_numpy(outputs), np.float64)
    output = output.reshape(-1, output.shape[-1])
    low, high = output.min(0), output.max(0)
    known = known & (high - low <= 4 * ROUNDING * np.maximum(np.abs(low), np.abs(high)))
    return Constant(known, np.where(known, output[0], 0.0))
