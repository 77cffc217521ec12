"""Layers that scale and shift each channel, as one TFLite op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from tfcompress.model.keras_private import LayerScale
from tfcompress.model.layers import rule_class

__all__ = ["compute", "factors", "is_affine"]


def is_affine(layer: keras.Layer) -> bool:
    """Return whether `factors` supports the layer, by its class and axis."""
    kind = rule_class(layer)
    if kind is layers.BatchNormalization:
        rank = layer.input_spec.ndim if layer.input_spec else None
        return not getattr(layer, "renorm", False) and layer.axis in (-1, (rank or 0) - 1)
    if kind is layers.Normalization:
        # Statistics per channel, or one for all.
        return all(size == 1 for size in layer.mean.shape[:-1]) if layer.built else False
    return kind in (layers.Rescaling, LayerScale)


def factors(layer: keras.Layer, channels: int) -> tuple[Any, Any]:
    """Return factor and offset per channel: what the layer does at inference.

    For a BatchNormalization the factor is gamma / sqrt(variance + epsilon), and the offset is
    beta - mean * factor.

    >>> layer = layers.Rescaling(2.0, offset=-1.0)
    >>> [value.numpy().tolist() for value in factors(layer, 2)]
    [[2.0, 2.0], [-1.0, -1.0]]

    Args:
        layer: A layer that `is_affine` accepts.
        channels: Size of the last axis of its input.

    Returns:
        Two float32 tensors of one value per channel.
    """
    if isinstance(layer, layers.Rescaling):
        return _each(layer.scale, channels), _each(layer.offset, channels)
    if isinstance(layer, LayerScale):
        return _each(layer.gamma, channels), ops.zeros(channels)
    if isinstance(layer, layers.Normalization):
        mean = _each(layer.mean, channels)
        deviation = ops.maximum(ops.sqrt(_each(layer.variance, channels)), keras.config.epsilon())
        return (deviation, mean) if layer.invert else (1.0 / deviation, -mean / deviation)
    factor = ops.rsqrt(ops.convert_to_tensor(layer.moving_variance) + layer.epsilon)
    if layer.gamma is not None:
        factor = factor * layer.gamma
    offset = -factor * layer.moving_mean
    return factor, offset if layer.beta is None else offset + layer.beta


def _each(value: Any, channels: int) -> Any:
    """Return one value per channel, from one for all or one for each."""
    return ops.broadcast_to(ops.reshape(ops.cast(value, "float32"), (-1,)), (channels,))


def compute(x: Any, factor: Any, offset: Any, activation: Callable[[Any], Any]) -> Any:
    """Compute activation(x * factor + offset) per channel, as a depthwise convolution of size one.

    This is one int8 op, and each factor has a scale of its own, so that none loses precision. A MUL
    would round them with one scale for all, and an ADD would follow.

    Args:
        x: Float tensor of rank two or more, channels last.
        factor: Float tensor (channels,).
        offset: Float tensor (channels,).
        activation: Function of a tensor.

    Returns:
        Tensor of the shape and dtype of `x`.
    """
    image = len(x.shape) == 4
    rows = int(np.prod(x.shape[1:-1])) if all(x.shape[1:-1]) else 1
    images = x if image else ops.reshape(x, (-1, rows, 1, factor.shape[0]))
    kernel = ops.cast(ops.reshape(factor, (1, 1, -1, 1)), x.dtype)
    y = activation(ops.depthwise_conv(images, kernel, padding="valid") + ops.cast(offset, x.dtype))
    return y if image else ops.reshape(y, [-1 if n is None else n for n in x.shape])
