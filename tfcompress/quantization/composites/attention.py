"""Attention with several heads as int8 ops: products, a softmax, and the masks between them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from tfcompress.converters.export.scope import is_exporting
from tfcompress.model.keras_private import attention_dropout, attention_projections
from tfcompress.quantization.executor import Executor
from tfcompress.quantization.numerics import activation_steps, fake_quant, nudged
from tfcompress.quantization.ops.activations import UNIT

__all__ = ["applies", "compute", "masked_softmax", "softmax_tensors", "tensors"]

MASKED = -3e4
"""Score of a masked position: it gets no attention, in half precision too."""


def tensors(layer: Any, shape: Any) -> Sequence[str]:
    """Return the names of the tensors between the ops. The softmax has the range of TFLite."""
    return ("query", "key", "value", "scores", "context")


def applies(layer: Any) -> str | None:
    """Return why `compute` does not support the layer, or None if it does."""
    if layer.get_config().get("use_gate"):
        return "its gate is not known to int8"
    return None


def compute(
    q: Executor,
    layer: Any,
    query: Any,
    value: Any,
    key: Any = None,
    query_mask: Any = None,
    value_mask: Any = None,
    key_mask: Any = None,
    attention_mask: Any = None,
    return_attention_scores: bool = False,
    training: bool | None = None,
    use_causal_mask: bool = False,
) -> Any:
    """Compute softmax(Q K' / sqrt(d)) V of a MultiHeadAttention or a GroupQueryAttention.

    The factor 1 / sqrt(d) goes into the query's kernel and bias, whose scales it commutes with.

    Args:
        q: Executor of the call.
        layer: Layer to compute.
        query: Float tensor (batch, *positions, features).
        value: Float tensor (batch, *positions, features).
        key: Float tensor (batch, *positions, features). Defaults to `value`.
        query_mask: Boolean tensor (batch, positions): which queries count. A masked query attends
            to all positions. Defaults to all.
        value_mask: Boolean tensor (batch, positions): which values may be attended to. Defaults to
            all.
        key_mask: Boolean tensor (batch, positions): which keys may be attended to. Defaults to all.
        attention_mask: Boolean tensor (batch, queries, keys): which query may attend to which key,
            without an axis for the heads. Defaults to all.
        return_attention_scores: Whether to return the attention scores too. Defaults to False.
        training: Whether to apply dropout. Defaults to False.
        use_causal_mask: Whether a query sees no later key. Defaults to False.

    Returns:
        What the layer returns: the output, and the attention scores if asked for.

    Reference:
        Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; Ainslie et al. 2023,
        https://arxiv.org/abs/2305.13245
    """
    # Copies have no Keras masks: these count here, not in the layers inside.
    given = (query, value, value if key is None else key)
    key_step = q.input_step("value" if key is None else "key")
    query, value, key = (tf.identity(x) for x in given)
    masks = [
        *_padding(query_mask, value_mask, key_mask),
        *_bands(query, value, use_causal_mask, layer.get_config().get("sliding_window")),
        *([] if attention_mask is None else [ops.cast(attention_mask, "bool")]),
    ]
    factor = _width(layer) ** -0.5
    projections = attention_projections(layer)
    queries = q.linear(projections.query, query, q.input_step("query"), factor)
    queries = q.fake_quant("query", queries)
    keys = q.fake_quant("key", q.linear(projections.key, key, key_step))
    values = q.fake_quant("value", q.linear(projections.value, value, q.input_step("value")))

    axes = getattr(layer, "attention_axes", (1,))
    heads, shared = queries.shape[-2], keys.shape[-2]
    queries, back = _by_head(queries, axes)
    keys, values = _by_head(keys, axes)[0], _by_head(values, axes)[0]
    scores = tf.matmul(_regroup(queries, shared), keys, transpose_b=True)
    lengths = [ops.shape(x)[axis] for x in (query, value) for axis in axes]
    scores, mask = _mask(q, _regroup(scores, heads), masks, lengths)
    weights = fake_quant(tf.nn.softmax(scores), *UNIT)
    rate = getattr(layer, "dropout", 0.0)
    if mask is not None and (rate > 0.0 or return_attention_scores or len(query.shape) != 3):
        # There Keras gives nothing to a query that may attend to nothing; else, all keys alike.
        weights = fake_quant(tf.where(mask, weights, tf.constant(0.0, weights.dtype)), *UNIT)
    dropped = attention_dropout(layer)(weights, training=training)
    context = q.fake_quant("context", tf.matmul(_regroup(dropped, shared), values))
    output = q.linear(projections.output, back(_regroup(context, heads)), q.step("context"))
    if not return_attention_scores:
        return output
    if len(axes) > 1:
        weights = ops.reshape(weights, [*ops.shape(weights)[:-2], *lengths])
    return output, weights


def softmax_tensors(layer: Any, shape: Any) -> Sequence[str]:
    """Return the name of the tensor between the ops of `masked_softmax`."""
    return ("scores",)


def masked_softmax(
    q: Executor, layer: Any, scores: Any, mask: Any = None, training: bool | None = None
) -> Any:
    """Compute a softmax over the positions that a mask leaves, as attention does.

    Args:
        q: Rounds the scores.
        layer: A `Softmax`; one over another axis than the last is called as it is.
        scores: Tensor (..., queries, keys).
        mask: Tensor that broadcasts to the scores: which of them count. Defaults to all.
        training: Whether the model is being trained. Without effect.

    Returns:
        Tensor of the shape of `scores`: 0 where the mask is False.
    """
    if mask is None or layer.axis not in (-1, len(scores.shape) - 1):
        return layer(scores, mask=mask)
    mask = ops.cast(mask, "bool")
    for _ in range(len(scores.shape) - len(mask.shape)):
        mask = ops.expand_dims(mask, 0)
    scores, mask = _mask(q, scores, [mask], [1, 1])
    weights = fake_quant(tf.nn.softmax(scores), *UNIT)
    return tf.where(mask, weights, tf.constant(0.0, weights.dtype))


def _width(layer: Any) -> float:
    """Return the number of features of a query."""
    return float(layer.head_dim if hasattr(layer, "head_dim") else layer.key_dim)


def _padding(query_mask: Any, value_mask: Any, key_mask: Any) -> list[Any]:
    """Return Keras' masks of padding, (batch, steps), in the shape of scores without heads."""
    masks = [(query_mask, -1), (value_mask, -2), (key_mask, -2)]
    return [ops.expand_dims(ops.cast(m, "bool"), axis) for m, axis in masks if m is not None]


def _bands(query: Any, value: Any, causal: bool, window: int | None) -> list[Any]:
    """Return masks by the distance of two positions: constants where the lengths are known."""
    if not causal and window is None:
        return []
    known = query.shape[1] is not None and value.shape[1] is not None
    library = np if known else ops
    rows, columns = (library.arange(ops.shape(x)[1]) for x in (query, value))
    distance = rows[:, None] - columns[None, :]
    masks = [distance >= 0] if causal else []
    return masks if window is None else [*masks, library.abs(distance) < window]


def _by_head(x: Any, axes: Sequence[int]) -> tuple[Any, Any]:
    """Move the attended positions next to the last axis, as one axis.

    Args:
        x: Tensor (batch, *positions, heads, width).
        axes: Attended axes; the other positions are like batches.

    Returns:
        The tensor (batch, *others, heads, attended, width), and the function that brings a tensor
        of that shape back.
    """
    rank = len(x.shape)
    others = [axis for axis in range(1, rank - 2) if axis not in axes]
    order = [0, *others, rank - 2, *axes, rank - 1]
    y = tf.transpose(x, order)
    sizes = ops.shape(y)
    if len(axes) > 1:
        y = ops.reshape(y, [*sizes[: -1 - len(axes)], -1, sizes[-1]])

    def back(z: Any) -> Any:
        if len(axes) > 1:
            z = ops.reshape(z, [*sizes[:-1], z.shape[-1]])
        return tf.transpose(z, np.argsort(order))

    return y, back


def _regroup(x: Any, heads: int) -> Any:
    """Reshape (batch, heads, rows, width) to another number of heads, with more or fewer rows.

    Queries that share a key stand below each other in one product, so that no key is repeated.
    """
    if x.shape[-3] == heads:
        return x
    rows = ops.shape(x)[-2] * x.shape[-3] // heads
    return ops.reshape(x, [-1, heads, rows, x.shape[-1]])


def _mask(q: Executor, scores: Any, masks: list[Any], lengths: list[Any]) -> tuple[Any, Any]:
    """Return scores rounded to int8, the lowest int8 value where a mask is False; and the mask.

    The range reaches so far below the scores that all masked positions together weigh less than a
    step of the softmax: by log(256 n).
    """
    if not masks:
        return q.fake_quant("scores", scores), None
    mask = functools.reduce(ops.logical_and, masks)
    # A mask has no axis for the heads.
    for _ in range(len(scores.shape) - 2 + len(lengths) - len(mask.shape)):
        mask = ops.expand_dims(mask, -len(lengths) - 1)
    if len(lengths) > 2:
        batch = ops.shape(mask)[: -len(lengths)]
        mask = ops.broadcast_to(mask, [*batch, *lengths])
        mask = ops.reshape(mask, [*batch, *ops.shape(scores)[-2:]])
    if is_exporting():
        low, _ = nudged(*q.inner["scores"].range())
        hidden = tf.where(mask, q.fake_quant("scores", scores), low)
        return q.fake_quant("scores", hidden), mask
    seen = tf.where(mask, scores, tf.zeros_like(scores))
    span = tf.math.log((activation_steps() + 1.0) * tf.cast(tf.shape(scores)[-1], tf.float32))
    lowest = tf.cast(tf.reduce_min(seen), tf.float32) - span
    q.observe("scores", tf.stack([lowest, tf.cast(tf.reduce_max(seen), tf.float32)]))
    hidden = tf.where(mask, scores, tf.constant(MASKED, scores.dtype))
    return q.fake_quant("scores", hidden, observe=False), mask
