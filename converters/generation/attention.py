"""Attention over a cache, in the few ops that are fast on the device."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from tfcompress.edge.arguments import check_integer, check_number, refuse

from .protocol import Cache

_MASKED = -1e9


def cached_attention(
    query: Any,
    key: Any,
    value: Any,
    cache: Cache,
    positions: Any,
    *,
    scale: float | None = None,
    window: int | None = None,
    soft_cap: float | None = None,
) -> tuple[Any, Cache]:
    """Put keys and values into the cache of a layer, and attend to all that is in it so far.

    A query sees the keys at its own position and before. The cache is updated and multiplied as a
    whole: every slice of it would be a copy. Heads that share keys are rows of one product, so that
    no key is repeated.

    >>> import numpy as np
    >>> x = np.ones((1, 3, 4, 8), "float32")  # three tokens, four heads
    >>> zeros = np.zeros((1, 2, 16, 8), "float32")  # two heads of keys, 16 tokens at most
    >>> y, (keys, _) = cached_attention(x, x[:, :, :2], x[:, :, :2], (zeros, zeros), np.arange(3))
    >>> y.shape, float(np.sum(keys))
    (TensorShape([1, 3, 4, 8]), 48.0)

    Args:
        query: Float tensor of shape (1, length, heads, head width).
        key: Float tensor of shape (1, length, heads of keys, head width). The heads are a multiple
            of the heads of keys.
        value: Float tensor with the shape of `key`.
        cache: Keys and values of the layer so far, each of shape (1, heads of keys, max_tokens,
            head width).
        positions: int32 tensor of shape (length,): the places of the tokens in the sequence.
        scale: Factor of the scores. Defaults to None, 1 over the root of the head width.
        window: Number of the last tokens that a query sees, itself included. Defaults to None, all.
        soft_cap: Bound of the scores, by `soft_cap * tanh(scores / soft_cap)`, as Gemma 2 has it.
            Defaults to None, no bound.

    Returns:
        A tensor with the shape of `query`, and the cache with the new keys and values.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The shapes do not fit together, or a number is out of range.
    """
    _check(query, key, value, cache, positions)
    if scale is not None:
        check_number("scale", scale)
    if window is not None:
        check_integer("window", window, 1)
    if soft_cap is not None:
        check_number("soft_cap", soft_cap, above=0)
    _, length, heads, width = query.shape
    groups = key.shape[2]
    first = ops.cast(positions, "int32")[0]
    keys, values = (
        ops.slice_update(old, (0, 0, first, 0), _heads_first(new))
        for old, new in zip(cache, (key, value), strict=True)
    )
    rows = (heads // groups) * length
    scaled = query * (1 / math.sqrt(width) if scale is None else scale)
    grouped = ops.reshape(_heads_first(scaled), (1, groups, rows, width))
    scores = ops.matmul(grouped, ops.swapaxes(keys, 2, 3))
    if soft_cap is not None:
        scores = soft_cap * ops.tanh(scores / soft_cap)
    hidden = _hidden(positions, keys.shape[2], window)
    if length > 1:
        hidden = ops.tile(hidden, (heads // groups, 1))
    weights = ops.softmax(scores + hidden, axis=-1)
    mixed = ops.reshape(ops.matmul(weights, values), (1, heads, length, width))
    return _heads_first(mixed), (keys, values)


def _heads_first(x: Any) -> Any:
    """Swap the axes of heads and tokens; with one of either, nothing moves."""
    _, first, second, width = x.shape
    if 1 in (first, second):
        return ops.reshape(x, (1, second, first, width))
    return ops.transpose(x, (0, 2, 1, 3))


def _hidden(positions: Any, max_tokens: int, window: int | None) -> Any:
    """Return what is added to the scores: nothing where a query may look, else a large negative."""
    own = ops.cast(positions, "float32")[:, None]
    ago = own - ops.arange(max_tokens, dtype="float32")[None, :]
    seen = ago >= 0
    if window is not None:
        seen = ops.logical_and(seen, ago < window)
    return (1.0 - ops.cast(seen, "float32")) * _MASKED


def _check(query: Any, key: Any, value: Any, cache: Any, positions: Any) -> None:
    """Check that tensors fit together."""
    _, length, heads, width = _shape("query", query, "(1, length, heads, head width)", 4)
    shape = _shape("key", key, f"(1, {length}, heads of keys, {width})", 4)
    if shape[1] != length or shape[3] != width:
        refuse("key", f"a tensor of shape (1, {length}, heads of keys, {width})", key)
    if heads % shape[2]:
        raise ValueError(
            f"{heads} heads of queries are no multiple of {shape[2]} heads of keys, `key`"
        )
    if _shape("value", value, f"{shape}", 4) != shape:
        raise ValueError(
            f"`value` must have the shape of `key`, {shape}. Received: {tuple(value.shape)}"
        )
    wanted = f"keys and values of shape (1, {shape[2]}, max_tokens, {width})"
    if not isinstance(cache, tuple | list) or len(cache) != 2:
        refuse("cache", wanted, cache, TypeError)
    for part in cache:
        _, groups, _, own = _shape("cache", part, wanted, 4)
        if (groups, own) != (shape[2], width):
            refuse("cache", wanted, part)
    if _shape("positions", positions, f"({length},)", 1) != (length,):
        refuse("positions", f"an integer tensor of shape ({length},)", positions)


def _shape(name: str, tensor: Any, wanted: str, rank: int) -> tuple[int, ...]:
    """Return a shape, or raise if a value is no tensor of so many axes."""
    if not hasattr(tensor, "shape") or not hasattr(tensor, "dtype"):
        refuse(name, f"a tensor of shape {wanted}", tensor, TypeError)
    shape = tuple(tensor.shape)
    if len(shape) != rank or 0 in shape:
        refuse(name, f"a tensor of shape {wanted}", tensor)
    return shape
