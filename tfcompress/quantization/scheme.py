"""`Int8Scheme`: how `quantize_aware` quantizes, in bits, symmetry and granularity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from tfcompress.edge.arguments import check_bool

from .observers.base import check_observer

__all__ = ["Int8Scheme", "TensorScheme"]


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
class Int8Scheme:
    """Int8 as TFLite defines it: weights symmetric per output channel, activations per tensor.

    >>> Int8Scheme(ranges="learned").weights
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

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there is no such observer, or the momentum is out of bounds.

    Reference:
        https://ai.google.dev/edge/litert/models/quantization_spec; Jacob et al. 2018,
        https://arxiv.org/abs/1712.05877; Esser et al. 2020, https://arxiv.org/abs/1902.08153
    """

    ranges: str = "moving_average"
    momentum: float = 0.99
    symmetric_activations: bool = False

    name: ClassVar[str] = "int8"
    weights: ClassVar[TensorScheme] = TensorScheme(8, True, "per_channel")

    def __post_init__(self) -> None:
        check_observer(self.ranges, self.momentum)
        check_bool("symmetric_activations", self.symmetric_activations)

    @property
    def activations(self) -> TensorScheme:
        """Return how activations are quantized."""
        return TensorScheme(8, self.symmetric_activations, "per_tensor")
