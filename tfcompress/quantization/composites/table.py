"""The table of composites: layers that TFLite computes with several ops, with int8 in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops
from keras.layers import Layer

from tfcompress.converters.export.scope import is_exporting
from tfcompress.model.layers import rule_class
from tfcompress.quantization import numerics
from tfcompress.quantization.executor import Executor
from tfcompress.quantization.ops.activations import activate, is_fused
from tfcompress.quantization.ops.linear import convolve, is_linear

from . import attention, recurrent

__all__ = ["COMPOSITES", "Composite", "composite_of"]


@dataclass(frozen=True)
class Composite:
    """How a layer of several ops is computed.

    Attributes:
        compute: `(executor, layer, *args, training, **kwargs) -> outputs`, with the arguments of
            the layer's `call`. The `Executor` rounds kernels and inner tensors.
        tensors: `(layer, shape of its first argument) -> names` of the inner tensors. The output of
            the last op is not one of them: a `FakeQuant` layer rounds it.
        output_step: `(executor, layer, index of the output) -> step` of a composite that rounds
            its outputs itself: the distance between neighbouring values, or None if unknown. None
            for a composite that does not.
        applies: `layer -> reason` why a layer of the class cannot be computed so, or None.
    """

    compute: Callable[..., Any]
    tensors: Callable[[Any, Any], Sequence[str]] = lambda layer, shape: ()
    output_step: Callable[[Executor, Any, int], Any] | None = None
    applies: Callable[[Any], str | None] = lambda layer: None


def composite_of(layer: Layer) -> Composite | None:
    """Return the composite of a layer, if it has one that applies."""
    composite = COMPOSITES.get(rule_class(layer))
    return composite if composite is not None and composite.applies(layer) is None else None


def _separable(q: Executor, layer: Any, x: Any, training: bool | None = None) -> Any:
    """Compute a depthwise and a pointwise convolution, with an int8 tensor between them."""
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
    return q.activate(layer.activation, y)


def _separable_tensors(layer: Any, shape: Any) -> Sequence[str]:
    return ("depthwise",) if is_fused(layer.activation) else ("depthwise", "linear")


def _embedding(q: Executor, layer: Any, tokens: Any, training: bool | None = None) -> Any:
    """Look rows up in an int8 table, which has one scale for all of it."""
    if is_exporting():
        with tf.init_scope():
            values = tf.convert_to_tensor(layer.embeddings).numpy()
        low, high = numerics.nudged(values.min(), values.max())
        return tf.quantization.fake_quant_with_min_max_args(layer(tokens), low, high)
    return numerics.fake_quant(layer(tokens), *_table_range(layer))


def _embedding_step(q: Executor, layer: Any, index: int) -> Any:
    return numerics.step_size(*(ops.cast(bound, "float32") for bound in _table_range(layer)))


def _table_range(layer: Any) -> tuple[Any, Any]:
    table = layer.embeddings
    return tf.stop_gradient(ops.min(table)), tf.stop_gradient(ops.max(table))


def _activation(q: Executor, layer: Any, x: Any, training: bool | None = None) -> Any:
    return activate(layer.activation, x)


def _sum(q: Executor, layer: Any, terms: Sequence[Any], training: bool | None = None) -> Any:
    """Add two tensors at a time, as TFLite's ADD does; each partial sum is an int8 tensor."""
    total = terms[0]
    for index, term in enumerate(terms[1:], start=1):
        total = total + term
        if index < len(terms) - 1:
            total = q.fake_quant(f"sum_{index}", total)
    return total


def _sum_tensors(layer: Any, shape: Any) -> Sequence[str]:
    return [f"sum_{index}" for index in range(1, len(shape) - 1)]


def _inside(layer: Layer) -> Composite | None:
    """Return the composite of a layer in a TimeDistributed, which gives it no mask."""
    return None if rule_class(layer) is layers.Softmax else composite_of(layer)


def _time_distributed(
    q: Executor, layer: Any, x: Any, training: bool | None = None, mask: Any = None
) -> Any:
    """Compute the layer inside once, on all steps of all samples as one batch."""
    inner, sizes = layer.layer, ops.shape(x)
    flat = ops.reshape(x, (-1, *sizes[2:]))
    composite, step = _inside(inner), q.input_step()
    if composite is not None:
        argument = next(iter(signature(inner.call).parameters))
        q = q.with_input_step(argument, step)
        y = composite.compute(q, inner, flat, training=training)
    elif is_linear(inner) and is_fused(inner.activation):
        y = q.linear(inner, flat, step, activation=inner.activation)
    elif is_linear(inner):
        y = q.activate(inner.activation, q.linear(inner, flat, step))
    else:
        y = q.apply(inner, flat)
    return ops.reshape(y, (-1, sizes[1], *ops.shape(y)[1:]))


def _time_distributed_tensors(layer: Any, shape: Any) -> Sequence[str]:
    inner = layer.layer
    composite = _inside(inner)
    if composite is not None:
        return composite.tensors(inner, (shape[0], *shape[2:]))
    return ("linear",) if is_linear(inner) and not is_fused(inner.activation) else ()


def _time_distributed_step(q: Executor, layer: Any, index: int) -> Any:
    composite = _inside(layer.layer)
    if composite is None or composite.output_step is None:
        return None
    return composite.output_step(q, layer.layer, index)


def _time_distributed_applies(layer: Any) -> str | None:
    inner = layer.layer
    if isinstance(inner, keras.Model):
        return "it holds a model; with a TimeDistributed for each layer of that it is int8"
    if isinstance(inner, layers.BatchNormalization):
        return "it normalizes each step by itself"
    if (composite := COMPOSITES.get(rule_class(inner))) is not None:
        reason = composite.applies(inner)
        returns = getattr(inner, "return_state", False)
        return "it has several outputs" if reason is None and returns else reason
    return None


_ATTENTION = Composite(attention.compute, attention.tensors, applies=attention.applies)
_RECURRENT = Composite(
    recurrent.compute, recurrent.tensors, recurrent.output_step, recurrent.applies
)
_BIDIRECTIONAL = Composite(
    recurrent.bidirectional,
    recurrent.bidirectional_tensors,
    recurrent.bidirectional_output_step,
    recurrent.applies,
)
_SEPARABLE = Composite(_separable, _separable_tensors)
_TIME_DISTRIBUTED = Composite(
    _time_distributed, _time_distributed_tensors, _time_distributed_step, _time_distributed_applies
)

COMPOSITES: dict[type, Composite] = {
    layers.Activation: Composite(_activation),
    layers.Add: Composite(_sum, _sum_tensors),
    layers.Bidirectional: _BIDIRECTIONAL,
    layers.Embedding: Composite(_embedding, output_step=_embedding_step),
    layers.GRU: _RECURRENT,
    layers.GroupQueryAttention: _ATTENTION,
    layers.LSTM: _RECURRENT,
    layers.MultiHeadAttention: _ATTENTION,
    layers.SeparableConv1D: _SEPARABLE,
    layers.SeparableConv2D: _SEPARABLE,
    layers.SimpleRNN: _RECURRENT,
    layers.Softmax: Composite(attention.masked_softmax, attention.softmax_tensors),
    layers.TimeDistributed: _TIME_DISTRIBUTED,
    # These never apply; they are here for the reason.
    layers.ConvLSTM1D: _RECURRENT,
    layers.ConvLSTM2D: _RECURRENT,
    layers.ConvLSTM3D: _RECURRENT,
    layers.RNN: _RECURRENT,
}
