"""Scaled dot-product attention, written out in operations that all methods know."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
from keras import ops

__all__ = ["written_out"]


def written_out(operation: Any) -> Callable[..., Any] | None:
    """Return a function of tensors that computes attention as one operation does.

    >>> written_out(keras.ops.add) is None
    True

    Args:
        operation: An operation of `keras.ops`.

    Returns:
        A function of query, key, value, bias, mask and scale; None if it is another operation, or
        caps its scores.
    """
    if type(operation).__name__ != "DotProductAttention" or operation.attn_logits_soft_cap:
        return None
    return partial(_attention, operation.is_causal)


def _attention(
    causal: bool,
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    scale: Any = None,
) -> Any:
    dtype = key.dtype
    groups = query.shape[2] // key.shape[2]
    if groups > 1:
        key, value = (ops.repeat(x, groups, axis=2) for x in (key, value))
    scores = ops.cast(ops.einsum("btnh,bsnh->bnts", query, key), "float32")
    scores = ops.multiply(scores, key.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        scores = ops.add(scores, bias)
    if causal:
        past = ops.tril(ops.ones(scores.shape[2:], "bool"))[None, None]
        mask = past if mask is None else ops.logical_and(mask, past)
    softmax = keras.layers.Softmax(dtype="float32", name="softmax")
    probabilities = softmax(scores) if mask is None else softmax(scores, mask)
    return ops.einsum("bnts,bsnh->btnh", ops.cast(probabilities, dtype), value)
