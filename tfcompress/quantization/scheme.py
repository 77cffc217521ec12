"""`QuantizationScheme`: how `quantize_aware` quantizes, in bits, symmetry and granularity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import keras
from keras import layers

from tfcompress.edge.arguments import check_bool, check_integer, refuse
from tfcompress.model.layers import rule_class

from .observers.base import check_observer

__all__ = ["QuantizationScheme", "TensorScheme", "weight_bits"]

_NARROW = (layers.Conv1D, layers.Conv2D, layers.Dense, layers.EinsumDense)


@dataclass(frozen=True)
class TensorScheme:
    """How the tensors of one kind are quantized.

    >>> TensorScheme(bits=8, symmetric=True, granularity="per_channel").bits
    8

    Args:
        bits: Width of the integers.
        symmetric: Whether the zero point is 0.
        granularity: What shares a scale: "per_tensor", or "per_channel" (output channels).
    """

    bits: int
    symmetric: bool
    granularity: Literal["per_tensor", "per_channel"]


@dataclass(frozen=True)
class QuantizationScheme:
    """Integers as TFLite has them: weights symmetric per output channel, activations per tensor.

    With weights of 4 bits, convert to `converters.Int4Weights()`. Depthwise and transposed
    convolutions and recurrent layers are trained with 8, as they are stored.

    >>> QuantizationScheme(ranges="learned").weights
    TensorScheme(bits=8, symmetric=True, granularity='per_channel')

    Args:
        ranges: Name of the observer that gives the ranges of activations: "moving_average" of the
            lowest and highest values of training batches, "learned" by gradient together with a
            largest weight per channel (LSQ), "minmax" over everything seen, or the name of an
            observer of your own. Defaults to "moving_average".
        momentum: Share of the old range that a training step keeps, from 0 up to, not including, 1.
            Defaults to 0.99.
        symmetric_activations: Whether the zero points of activations are 0. Some accelerators want
            that; it costs half the steps after a ReLU. Defaults to False.
        weight_bits: 8, or 4 for the kernels of dense layers and convolutions. Defaults to 8.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there is no such observer, the momentum is out of bounds, or `weight_bits` is
            neither 8 nor 4.

    Reference:
        https://ai.google.dev/edge/litert/models/quantization_spec; Jacob et al. 2018,
        https://arxiv.org/abs/1712.05877; Esser et al. 2020, https://arxiv.org/abs/1902.08153
    """

    ranges: str = "moving_average"
    momentum: float = 0.99
    symmetric_activations: bool = False
    weight_bits: int = 8

    def __post_init__(self) -> None:
        check_observer(self.ranges, self.momentum)
        check_bool("symmetric_activations", self.symmetric_activations)
        if check_integer("weight_bits", self.weight_bits, 4, 8) not in (4, 8):
            refuse("weight_bits", "8 or 4", self.weight_bits)

    @property
    def weights(self) -> TensorScheme:
        """Return how kernels are quantized, where the file has them in that width."""
        return TensorScheme(self.weight_bits, True, "per_channel")

    @property
    def activations(self) -> TensorScheme:
        """Return how activations are quantized."""
        return TensorScheme(8, self.symmetric_activations, "per_tensor")


def weight_bits(scheme: QuantizationScheme, layer: keras.layers.Layer) -> int:
    """Return the bits of the kernel of a layer: 8 where a file has no narrower ones.

    >>> scheme = QuantizationScheme(weight_bits=4)
    >>> weight_bits(scheme, layers.Dense(2)), weight_bits(scheme, layers.DepthwiseConv2D(3))
    (4, 8)

    Args:
        scheme: How the model is quantized.
        layer: A layer with a kernel.

    Returns:
        8, or the bits of the scheme.
    """
    narrow = rule_class(layer) in _NARROW and getattr(layer, "groups", 1) == 1
    return scheme.weight_bits if narrow else 8
