"""First layers that stay in float, because no int8 range is fine enough for their features."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import Any

import keras
import numpy as np
from keras import layers

from tfcompress.model.graph import nodes
from tfcompress.model.layers import rule_class

from .layer_table import Rule, rule_of

__all__ = ["is_uneven", "uneven_first_layers"]

_SIGMAS = 3.0  # Features lie within so many standard deviations of their mean, but for a few.
_STEPS = 8.0  # Steps to a standard deviation: a signal-to-noise ratio of 29 dB.


def uneven_first_layers(model: keras.Model, in_float: Collection[int] = ()) -> set[int]:
    """Return the layers that normalize uneven features as they come in, and warn that they do.

    >>> inputs = keras.Input((2,))
    >>> norm = layers.Normalization(mean=[120.0, 110.0], variance=[3400.0, 3200.0])
    >>> uneven_first_layers(keras.Model(inputs, norm(inputs)))
    set()

    Args:
        model: A functional or sequential model.
        in_float: Ids of layers that stay in float anyway. Defaults to none.

    Returns:
        Ids of layers that read inputs of the model, which other operations may have moved about.
    """
    raw: set[int] = set()
    found: dict[int, keras.layers.Layer] = {}
    for node in nodes(model):
        moves = rule_of(node.operation) in (Rule.SAME, Rule.JOINED)
        if node.call.is_input or (moves and node.inputs and raw.issuperset(node.inputs)):
            raw.update(node.outputs)
        elif node.inputs and raw.issuperset(node.inputs) and is_uneven(node.operation):
            found[id(node.operation)] = node.operation
    found = {key: layer for key, layer in found.items() if key not in in_float}
    for layer in found.values():
        warnings.warn(
            f"Layer '{layer.name}' stays in float: its features differ so much that one int8 range "
            "would lose the small ones. The file takes float input. To have int8 throughout, scale "
            "the features before the model, or select all layers with filters='.*'. "
            f"exclude=['{layer.name}'] does the same as now without a warning.",
            stacklevel=3,
        )
    return set(found)


def is_uneven(operation: Any) -> bool:
    """Return whether one int8 range for all features is too coarse for one of them.

    The layer's statistics say which features it expects. One range holds all of them, and zero. A
    feature whose standard deviation has fewer than 8 of the 255 steps is lost in it.

    >>> is_uneven(layers.Normalization(mean=[0.5, 40000.0], variance=[0.1, 1e8]))
    True
    >>> is_uneven(layers.Normalization(mean=[120.0, 110.0], variance=[3400.0, 3200.0]))
    False

    Args:
        operation: A layer or operation. Only Normalization, BatchNormalization and Rescaling say
            what they expect.
    """
    statistics = _statistics(operation)
    if statistics is None:
        return False
    mean, deviation = (value.ravel() for value in statistics)
    low = min(0.0, float((mean - _SIGMAS * deviation).min()))
    high = max(0.0, float((mean + _SIGMAS * deviation).max()))
    varying = deviation[deviation > 0.0]
    return bool((varying < _STEPS * (high - low) / 255.0).any())


def _statistics(layer: Any) -> tuple[Any, Any] | None:
    """Return mean and standard deviation of each feature that the layer expects."""
    kind = rule_class(layer)
    if kind is layers.Normalization and not layer.invert:
        given = layer.input_mean is not None
        if not (given or layer.built):
            return None
        mean = layer.input_mean if given else layer.mean
        variance = layer.input_variance if given else layer.variance
        return _array(mean), np.sqrt(_array(variance))
    if kind is layers.BatchNormalization and layer.built:
        return _array(layer.moving_mean), np.sqrt(_array(layer.moving_variance) + layer.epsilon)
    if kind is layers.Rescaling:
        scale, offset = _array(layer.scale), _array(layer.offset)
        if not scale.all():
            return None
        # What comes out is of order one.
        mean, deviation = np.broadcast_arrays(-offset / scale, 1.0 / np.abs(scale))
        return mean, deviation
    return None


def _array(values: Any) -> Any:
    return keras.ops.convert_to_numpy(values).astype("float64")
