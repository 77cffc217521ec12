"""Any model that `convert_generator` takes, as a `LanguageModel`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from tfcompress.converters.errors import ConversionError

from .families import known_family
from .protocol import Cache, LanguageModel

_SAME = 1e-3
"""As a share of the largest logit: float32 sums in another order."""


class CachedModel:
    """A model of KerasHub by its own `call_with_cache`, as a `LanguageModel`.

    Most have one cache for all layers, which is put together and taken apart in each step: slower
    than a graph with a cache for each layer, by a multiple. Gemma 3 has a pair for each layer, with
    the axes of heads and tokens in another order.

    Args:
        model: A causal language model of KerasHub.
        layers: Number of layers with a cache.
        shape: Heads of keys, and head width.
        pairs: Whether the model has a pair of keys and values for each layer. Defaults to False.
    """

    def __init__(
        self, model: Any, layers: int, shape: tuple[int, int], *, pairs: bool = False
    ) -> None:
        self._model = model
        self._layers = layers
        self._shape = shape
        self._pairs = pairs

    def cache_shapes(self, max_tokens: int) -> list[tuple[int, int, int, int]]:
        """Return the shape of the keys of each layer."""
        heads, width = self._shape
        return [(1, heads, max_tokens, width)] * self._layers

    def step(self, tokens: Any, positions: Any, caches: Sequence[Cache]) -> tuple[Any, list[Cache]]:
        """Compute the next tokens."""
        if self._pairs:
            given = tuple(_swapped(cache) for cache in caches)
            logits, _, new = self._model.call_with_cache(tokens, given, positions[0])
            return logits, [_swapped(cache) for cache in new]
        whole = ops.stack([ops.stack(cache, axis=1) for cache in caches], axis=1)
        whole = ops.transpose(whole, (0, 1, 2, 4, 3, 5))
        logits, _, whole = self._model.call_with_cache(tokens, whole, positions[0])
        whole = ops.transpose(whole, (0, 1, 2, 4, 3, 5))
        return logits, [(whole[:, i, 0], whole[:, i, 1]) for i in range(self._layers)]


def _swapped(cache: Any) -> Cache:
    """Swap the axes of heads and tokens of keys and values."""
    keys, values = (ops.transpose(part, (0, 2, 1, 3)) for part in cache)
    return keys, values


def language_model(model: Any) -> LanguageModel:
    """Return a model as a `LanguageModel`.

    Args:
        model: A built model of KerasHub with `call_with_cache`, or one that is a `LanguageModel`.

    Returns:
        The model itself; or one that computes block by block what the model's `call_with_cache`
        gives, if it does so on a few tokens; or one that calls it.

    Raises:
        ConversionError: It is neither, or has a cache of another form.
    """
    if isinstance(model, LanguageModel):
        return model
    if not hasattr(model, "call_with_cache"):
        raise ConversionError(
            f"Model '{model.name}' is a {type(model).__name__}, which keeps no cache of keys and "
            "values. Give a causal language model of KerasHub, such as GPT2CausalLM (a backbone "
            "alone gives no logits), or one with the two methods of converters.LanguageModel."
        )
    try:
        any_model, shape = _by_cache(model)
        expected = _trial(any_model)
    except Exception as error:  # whatever the code of the model raises
        raise ConversionError(
            f"Model '{model.name}' is a {type(model).__name__}, whose cache has a form that is not "
            f"known: {_said(error)}. Write the two methods of converters.LanguageModel in a "
            "subclass of it."
        ) from error
    if not _close(_trial(any_model, together=4), expected):
        raise ConversionError(
            f"Model '{model.name}' is a {type(model).__name__}, which computes other logits one "
            "token at a time than for the same tokens together. Either a token attends to later "
            "ones, as in an encoder: use `convert`. Or its `call_with_cache` is wrong, as that of "
            "GPT-NeoX in KerasHub 0.32: write the two methods of converters.LanguageModel in a "
            "subclass of it."
        )
    known = known_family(model, shape)
    try:
        same = known is not None and _close(_trial(known), expected)
    except (AttributeError, TypeError, ValueError):  # a release of KerasHub with other names
        same = False
    return known if known is not None and same else any_model


def _by_cache(model: Any) -> tuple[CachedModel, tuple[int, int]]:
    """Return a model by its own `call_with_cache`, and its heads of keys and head width."""
    names = list(inspect.signature(model._build_cache).parameters)[1:]
    # What is beside the tokens is of images, or a mask of them.
    _, cache = model._build_cache(np.zeros((1, 2), "int32"), **dict.fromkeys(names))
    if isinstance(cache, tuple):
        shapes = {tuple(part.shape) for pair in cache for part in pair}
        if len(shapes) != 1 or any(len(pair) != 2 for pair in cache):
            raise ValueError(f"its layers have caches of the shapes {sorted(shapes)}")
        _, _, heads, width = shapes.pop()
        return CachedModel(model, len(cache), (heads, width), pairs=True), (heads, width)
    _, layers, two, _, heads, width = cache.shape
    if two != 2:
        raise ValueError(f"its cache has the shape {tuple(cache.shape)}")
    return CachedModel(model, layers, (heads, width)), (heads, width)


def _trial(model: LanguageModel, together: int = 3) -> list[np.ndarray]:
    """Return the logits of the first three tokens of four, and of the fourth.

    Args:
        model: The model.
        together: How many tokens are computed first, before the others. Defaults to 3.
    """
    caches: Sequence[Cache] = [(ops.zeros(s), ops.zeros(s)) for s in model.cache_shapes(6)]
    tokens, positions = np.array([[1, 0, 2, 1]], "int32"), np.arange(4, dtype="int32")
    found = []
    for part in (slice(0, together), slice(together, 4)):
        if part.start < 4:
            logits, caches = model.step(
                ops.convert_to_tensor(tokens[:, part]),
                ops.convert_to_tensor(positions[part]),
                caches,
            )
            found.append(ops.convert_to_numpy(logits))
    whole = np.concatenate(found, axis=1)
    return [whole[:, :3], whole[:, 3:]]


def _said(error: Exception) -> str:
    """Return what an error says, without Keras' line on the layer in which it was raised."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith("Exception encountered")]
    return (said or lines or [type(error).__name__])[0].rstrip(".")


def _close(actual: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    largest = max(float(np.abs(e).max()) for e in expected)
    return all(
        a.shape == e.shape and float(np.abs(a - e).max()) <= _SAME * largest
        for a, e in zip(actual, expected, strict=True)
    )
