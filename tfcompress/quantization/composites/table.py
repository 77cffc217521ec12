"""Layers of several TFLite ops: how each computes, with the tensors in between rounded to int8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops
from keras.layers import Layer

from tfcompress.converters.export.scope import is_exporting
from tfcompress.quantization import numerics as quantizers
from tfcompress.quantization.fake_quant import keep_step
from tfcompress.quantization.ops.activations import activate, is_fused
from tfcompress.quantization.ops.linear import convolve, is_linear

from . import attention, recurrent

__all__ = ["Recipe", "recipe_of"]


@dataclass(frozen=True)
class Recipe:
    """How a layer of several ops is computed.

    Attributes:
        compute: `(wrapper, layer, *args, training, **kwargs) -> outputs`. The `QuantizeWrapper`
            rounds kernels (`apply`, `linear`, `kernel`) and inner tensors (`fake_quant`).
        tensors: `(layer, shape of its first argument) -> names` that `compute` gives its inner
            tensors. The last op's output is none of them: a `FakeQuant` layer rounds it.
        rounded: Whether the outputs are rounded to int8 already.
        applies: Whether a layer of the class can be computed so, or else why not.
    """

    compute: Callable[..., Any]
    tensors: Callable[[Any, Any], Sequence[str]] = lambda layer, shape: ()
    rounded: bool = False
    applies: Callable[[Any], str | None] = lambda layer: None


def recipe_of(layer: Layer) -> Recipe | None:
    """The recipe of a layer; of the class itself, as a subclass may compute anything."""
    recipe = RECIPES.get(type(layer))
    return recipe if recipe is not None and recipe.applies(layer) is None else None


def _separable(q: Any, layer: Any, x: Any, training: bool | None = None) -> Any:
    """A depthwise and a pointwise convolution; the former's output is a tensor of its own."""
    depthwise = q.kernel(layer, "depthwise_kernel")
    pointwise = q.kernel(layer, "pointwise_kernel")
    flat = len(x.shape) == 3
    if flat:
        pointwise = pointwise[:, None]
    y = convolve(ops.depthwise_conv, layer, x, ops.cast(depthwise, x.dtype))
    y = q.fake_quant("depthwise", y)
    y = ops.conv(y, ops.cast(pointwise, x.dtype), padding="valid")
    if layer.bias is not None:
        y = y + ops.cast(layer.bias, x.dtype)
    if is_fused(layer.activation):
        y = layer.activation(y)
        return ops.squeeze(y, 2) if flat else y
    y = ops.squeeze(y, 2) if flat else y
    return activate(layer.activation, q.fake_quant("linear", y))


def _separable_tensors(layer: Any, shape: Any) -> Sequence[str]:
    return ("depthwise",) if is_fused(layer.activation) else ("depthwise", "linear")


def _embedding(q: Any, layer: Any, tokens: Any, training: bool | None = None) -> Any:
    """A look-up gives out what the table holds, in the table's own scale: one for all of it."""
    table = layer.embeddings
    if is_exporting():
        with tf.init_scope():
            values = tf.convert_to_tensor(table).numpy()
        low, high = quantizers.nudged(values.min(), values.max())
        return tf.quantization.fake_quant_with_min_max_args(layer(tokens), low, high)
    low, high = (tf.stop_gradient(bound) for bound in (ops.min(table), ops.max(table)))
    return quantizers.fake_quant(layer(tokens), low, high)


def _activation(q: Any, layer: Any, x: Any, training: bool | None = None) -> Any:
    return activate(layer.activation, x)


def _sum(q: Any, layer: Any, terms: Sequence[Any], training: bool | None = None) -> Any:
    """TFLite's ADD takes two: each sum on the way is a tensor."""
    total = terms[0]
    for index, term in enumerate(terms[1:], start=1):
        total = total + term
        if index < len(terms) - 1:
            total = q.fake_quant(f"sum_{index}", total)
    return total


def _sum_tensors(layer: Any, shape: Any) -> Sequence[str]:
    return [f"sum_{index}" for index in range(1, len(shape) - 1)]


def _time_distributed(
    q: Any, layer: Any, x: Any, training: bool | None = None, mask: Any = None
) -> Any:
    """The layer inside once, on all steps of all samples as one batch."""
    inner, sizes = layer.layer, ops.shape(x)
    flat = keep_step(ops.reshape(x, (-1, *sizes[2:])), x)
    recipe = recipe_of(inner)
    if recipe is not None:
        y = recipe.compute(q, inner, flat, training=training)
    elif is_linear(inner) and is_fused(inner.activation):
        y = q.linear(inner, flat, activation=inner.activation)
    elif is_linear(inner):
        y = activate(inner.activation, q.fake_quant("linear", q.linear(inner, flat)))
    else:
        y = q.apply(inner, flat)
    return ops.reshape(y, (-1, sizes[1], *ops.shape(y)[1:]))


def _time_distributed_tensors(layer: Any, shape: Any) -> Sequence[str]:
    inner = layer.layer
    recipe = recipe_of(inner)
    if recipe is not None:
        return recipe.tensors(inner, (shape[0], *shape[2:]))
    return ("linear",) if is_linear(inner) and not is_fused(inner.activation) else ()


def _time_distributed_applies(layer: Any) -> str | None:
    inner = layer.layer
    if isinstance(inner, keras.Model):
        return "it holds a model; with a TimeDistributed for each layer of that it is int8"
    if isinstance(inner, layers.BatchNormalization):
        return "it normalizes each step by itself"
    if type(inner) in RECIPES:
        reason = RECIPES[type(inner)].applies(inner)
        returns = getattr(inner, "return_state", False)
        return "it has several outputs" if reason is None and returns else reason
    return None


_ATTENTION = Recipe(attention.compute, attention.tensors, applies=attention.applies)
_RECURRENT = Recipe(recurrent.compute, recurrent.tensors, rounded=True, applies=recurrent.applies)

RECIPES: dict[type, Recipe] = {
    layers.SeparableConv1D: Recipe(_separable, _separable_tensors),
    layers.SeparableConv2D: Recipe(_separable, _separable_tensors),
    layers.Embedding: Recipe(_embedding, rounded=True),
    layers.Activation: Recipe(_activation),
    layers.Add: Recipe(_sum, _sum_tensors),
    layers.Bidirectional: Recipe(
        recurrent.bidirectional,
        recurrent.bidirectional_tensors,
        rounded=True,
        applies=recurrent.applies,
    ),
    layers.GRU: _RECURRENT,
    layers.GroupQueryAttention: _ATTENTION,
    layers.LSTM: _RECURRENT,
    layers.MultiHeadAttention: _ATTENTION,
    layers.SimpleRNN: _RECURRENT,
    # For the reason why not:
    layers.ConvLSTM1D: _RECURRENT,
    layers.ConvLSTM2D: _RECURRENT,
    layers.ConvLSTM3D: _RECURRENT,
    layers.RNN: _RECURRENT,
    layers.TimeDistributed: Recipe(
        _time_distributed, _time_distributed_tensors, applies=_time_distributed_applies
    ),
}
