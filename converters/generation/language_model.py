"""Any model that `convert_generator` takes, as a `LanguageModel`."""

from __future__ import annotations

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

    It has one cache for all layers, which is put together and taken apart in each step: slower
    than a graph with a cache for each layer, by a multiple.

    Args:
        model: A causal language model of KerasHub.
        layers: Number of layers with a cache.
        shape: Heads of keys, and head width.
    """

    def __init__(self, model: Any, layers: int, shape: tuple[int, int]) -> None:
        self._model = model
        self._layers = layers
        self._shape = shape

    def cache_shapes(self, max_tokens: int) -> list[tuple[int, int, int, int]]:
        """Return the shape of the keys of each layer."""
        heads, width = self._shape
        return [(1, heads, max_tokens, width)] * self._layers

    def step(self, tokens: Any, positions: Any, caches: Sequence[Cache]) -> tuple[Any, list[Cache]]:
        """Compute the next tokens."""
        whole = ops.stack([ops.stack(cache, axis=1) for cache in caches], axis=1)
        whole = ops.transpose(whole, (0, 1, 2, 4, 3, 5))
        logits, _, whole = self._model.call_with_cache(tokens, whole, positions[0])
        whole = ops.transpose(whole, (0, 1, 2, 4, 3, 5))
        return logits, [(whole[:, i, 0], whole[:, i, 1]) for i in range(self._layers)]


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
        _, cache = model._build_cache(np.zeros((1, 2), "int32"))
        shape = tuple(cache.shape)
        _, layers, two, _, heads, width = shape
        if two != 2:
            raise ValueError(f"its cache has the shape {shape}")
        any_model = CachedModel(model, layers, (heads, width))
        expected = _trial(any_model)
    except Exception as error:  # whatever the code of the model raises
        raise ConversionError(
            f"Model '{model.name}' is a {type(model).__name__}, whose cache has a form that is not "
            f"known: {str(error).strip().splitlines()[0]}. Write the two methods of "
            "converters.LanguageModel in a subclass of it."
        ) from error
    known = known_family(model, (heads, width))
    try:
        same = known is not None and _close(_trial(known), expected)
    except (AttributeError, TypeError, ValueError):  # a release of KerasHub with other names
        same = False
    return known if known is not None and same else any_model


def _trial(model: LanguageModel) -> list[np.ndarray]:
    """Return the logits of three tokens, and of a fourth one after them."""
    caches: Sequence[Cache] = [(ops.zeros(s), ops.zeros(s)) for s in model.cache_shapes(6)]
    tokens, positions = np.array([[1, 0, 2, 1]], "int32"), np.arange(4, dtype="int32")
    found = []
    for part in (slice(0, 3), slice(3, 4)):
        logits, caches = model.step(
            ops.convert_to_tensor(tokens[:, part]), ops.convert_to_tensor(positions[part]), caches
        )
        found.append(ops.convert_to_numpy(logits))
    return found


def _close(actual: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    largest = max(float(np.abs(e).max()) for e in expected)
    return all(
        a.shape == e.shape and float(np.abs(a - e).max()) <= _SAME * largest
        for a, e in zip(actual, expected, strict=True)
    )
