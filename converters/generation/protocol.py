"""What `convert_generator` needs of a language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

Cache = tuple[Any, Any]
"""The keys and the values of a layer: tensors of shape (1, heads, max_tokens, head width)."""


@runtime_checkable
class LanguageModel(Protocol):
    """A causal language model with a cache: the two methods that `convert_generator` needs.

    Write them in a `keras.Model` of your own whose `call` maps token ids of shape (batch, length)
    to logits of shape (batch, length, vocabulary). `cached_attention` does the work of a layer.

    >>> import keras
    >>> from tfcompress import converters
    >>> class OneLayer(keras.Model):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.embed = keras.layers.Embedding(50, 16)
    ...         self.head = keras.layers.Dense(50)
    ...
    ...     def cache_shapes(self, max_tokens):
    ...         return [(1, 2, max_tokens, 8)]
    ...
    ...     def step(self, tokens, positions, caches):
    ...         x = keras.ops.reshape(self.embed(tokens), (1, -1, 2, 8))
    ...         y, cache = converters.cached_attention(x, x, x, caches[0], positions)
    ...         return self.head(keras.ops.reshape(y, (1, -1, 16))), [cache]
    >>> isinstance(OneLayer(), converters.LanguageModel)
    True
    """

    def cache_shapes(self, max_tokens: int) -> Sequence[tuple[int, int, int, int]]:
        """Return the shape of the keys of each layer; the values have the same shape.

        Args:
            max_tokens: Tokens of the prompt and the answer together.

        Returns:
            For each layer (1, heads of keys and values, max_tokens, head width).
        """

    def step(
        self, tokens: Any, positions: Any, caches: Sequence[Cache]
    ) -> tuple[Any, Sequence[Cache]]:
        """Compute the next tokens of a sequence whose beginning is in the caches.

        Args:
            tokens: int32 tensor of shape (1, length): the ids.
            positions: int32 tensor of shape (length,): their places in the sequence, which follow
                each other from `positions[0]`. What stands after the end of a prompt may have any.
            caches: Keys and values of each layer.

        Returns:
            The logits, of shape (1, length, vocabulary), and the caches with these tokens in them.
        """
