"""Layers that scale and shift each channel, as one TFLite op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import layers, ops

__all__ = ["compute", "factors", "is_affine"]

Array = npt.NDArray[np.float32]


def is_affine(layer: keras.Layer) -> bool:
    """Whether `factors` knows the layer, by its class and axis."""
    if isinstance(layer, layers.BatchNormalization) and not getattr(layer, "renorm", False):
        rank = layer.input_spec.ndim if layer.input_spec else None
        return type(layer) is layers.BatchNormalization and layer.axis in (-1, (rank or 0) - 1)
    return type(layer) is layers.Rescaling


def factors(layer: keras.Layer, x: Any) -> tuple[Array, Array]:
    """Factor and offset per channel: what the layer does at inference.

    Of a BatchNormalization these are gamma / sqrt(variance + epsilon), and beta - mean * factor.

    >>> layer = layers.Rescaling(2.0, offset=-1.0)
    >>> [array.tolist() for array in factors(layer, np.zeros((1, 2)))]
    [[2.0, 2.0], [-1.0, -1.0]]

    Args:
        layer: One that `is_affine`.
        x: Its input, or anything with as many channels on the last axis.

    Returns:
        Two arrays of one value per channel.
    """
    channels = x.shape[-1]
    if isinstance(layer, layers.Rescaling):
        pair = (np.asarray(value, np.float32) for value in (layer.scale, layer.offset))
        factor, offset = (np.broadcast_to(value, (channels,)) for value in pair)
        return factor, offset
    with tf.init_scope():
        factor = 1.0 / np.sqrt(np.float64(layer.moving_variance.numpy()) + layer.epsilon)
        if layer.gamma is not None:
            factor = factor * layer.gamma.numpy()
        offset = -layer.moving_mean.numpy() * factor
        if layer.beta is not None:
            offset = offset + layer.beta.numpy()
    return factor.astype(np.float32), offset.astype(np.float32)


def compute(x: Any, factor: Array, offset: Array, activation: Callable[[Any], Any]) -> Any:
    """activation(x * factor + offset) per channel: a depthwise convolution of size one.

    As such it is one int8 op whose factors have a scale each and so lose nothing. A MUL would take
    them with one scale for all, and an ADD besides.

    Args:
        x: Tensor of rank two or more, channels last.
        factor: One per channel.
        offset: One per channel.
        activation: A function of a tensor.

    Returns:
        Tensor like `x`.
    """
    image = len(x.shape) == 4
    rows = int(np.prod(x.shape[1:-1])) if all(x.shape[1:-1]) else 1
    images = x if image else ops.reshape(x, (-1, rows, 1, len(factor)))
    kernel = ops.convert_to_tensor(factor.reshape(1, 1, -1, 1))
    y = activation(ops.depthwise_conv(images, kernel, padding="valid") + offset)
    return y if image else ops.reshape(y, [-1 if n is None else n for n in x.shape])
