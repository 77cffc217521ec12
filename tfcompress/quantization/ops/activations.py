"""Activation functions as TFLite computes them in int8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from keras import activations, ops

from tfcompress.quantization.numerics import fake_quant, signed_unit_range, unit_range

__all__ = ["FIXED_RANGES", "activate", "fixed_range", "has_int8_form", "is_fused"]

Activation = Callable[[Any], Any]

UNIT = unit_range()
SIGNED_UNIT = signed_unit_range()

FIXED_RANGES: dict[Any, tuple[float, float]] = {
    activations.sigmoid: UNIT,
    activations.softmax: UNIT,
    activations.tanh: SIGNED_UNIT,
}
"""Output range of the int8 op, whatever the data: the TFLite quantization specification.

https://ai.google.dev/edge/litert/models/quantization_spec
"""

_EXACT = {activations.hard_sigmoid: (0.0, 1.0)}
"""Range of an output that has no more than 256 values: another one only moves them to a grid of
other steps, where they may all lie in the middle between two.
"""

_TWINS = {
    tf.nn.gelu: activations.gelu,
    tf.nn.relu: activations.relu,
    tf.nn.relu6: activations.relu6,
    tf.nn.sigmoid: activations.sigmoid,
    tf.nn.silu: activations.silu,
    tf.nn.softmax: activations.softmax,
    tf.nn.tanh: activations.tanh,
}
"""TensorFlow's functions -> Keras' functions that compute the same."""

_FUSED = (activations.linear, activations.relu, activations.relu6)


def is_fused(activation: Activation) -> bool:
    """Return whether TFLite computes the activation within the op before it."""
    return _known(activation) in _FUSED


def has_int8_form(activation: Activation) -> bool:
    """Return whether every op of the activation is int8, as `activate` computes it."""
    return any(_known(activation) in known for known in (_FUSED, FIXED_RANGES, _INSIDE, _KNOWN))


def fixed_range(activation: Any) -> tuple[float, float] | None:
    """Return the range of the int8 output where it is one and the same, else None.

    TFLite prescribes it, or the activation gives 256 values whatever the data.
    """
    return FIXED_RANGES.get(_known(activation)) or _EXACT.get(_known(activation))


def activate(activation: Activation, x: Any) -> Any:
    """Apply an activation to an int8 tensor, with the tensors inside it rounded to int8.

    Args:
        activation: One of Keras' functions, or any other function of a tensor.
        x: Float tensor of any shape, rounded to int8.

    Returns:
        Tensor of the shape of `x`, not rounded to a range that TFLite prescribes.
    """
    return _INSIDE.get(_known(activation), activation)(x)


def _known(activation: Any) -> Any:
    return _TWINS.get(activation, activation)


def _silu(x: Any) -> Any:
    return x * fake_quant(ops.sigmoid(x), *UNIT)


def _hard_sigmoid(x: Any) -> Any:
    # relu6 is fused with the sum; a division by 6 would be one by a tensor.
    return fake_quant(ops.relu6(x + 3.0), 0.0, 6.0) * (1.0 / 6.0)


def _hard_silu(x: Any) -> Any:
    # In this form the converter sees HARD_SWISH.
    return x * tf.nn.relu6(x + 3.0) * (1.0 / 6.0)


_KNOWN = (activations.gelu, activations.hard_tanh, activations.soft_shrink)  # To the converter.

_INSIDE: dict[Any, Activation] = {
    activations.silu: _silu,
    activations.hard_sigmoid: _hard_sigmoid,
    activations.hard_silu: _hard_silu,
}
