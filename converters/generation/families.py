"""Language models of KerasHub that are read block by block, for a graph that is fast.

The names of the parts of a block, some with an underscore, are those of KerasHub 0.32. Each model
from here is compared with its own `call_with_cache` before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from tfcompress.model.keras_private import attention_projections

from .attention import cached_attention
from .protocol import Cache

Block = Callable[[Any, Any, Any, Cache], tuple[Any, Cache]]
"""A block of the model, its input, the positions and its cache -> its output and its cache."""


def _transformer(block: Any, x: Any, positions: Any, cache: Cache) -> tuple[Any, Cache]:
    """Compute a `TransformerDecoder`, as GPT-2 and OPT have them."""
    parts = attention_projections(block._self_attention_layer)
    y = block._self_attention_layer_norm(x) if block.normalize_first else x
    query, key, value = parts.query(y), parts.key(y), parts.value(y)
    mixed, cache = cached_attention(query, key, value, cache, positions)
    x = parts.output(mixed) + x
    if not block.normalize_first:
        x = block._self_attention_layer_norm(x)
    y = block._feedforward_layer_norm(x) if block.normalize_first else x
    x = block._feedforward_output_dense(block._feedforward_intermediate_dense(y)) + x
    return (x if block.normalize_first else block._feedforward_layer_norm(x)), cache


def _llama(block: Any, x: Any, positions: Any, cache: Cache) -> tuple[Any, Cache]:
    """Compute a block of Llama, Mistral, Qwen or Qwen 3."""
    attention = block._self_attention_layer
    parts = attention_projections(attention)  # its names are those of Keras' own attention
    y = block._self_attention_layernorm(x)
    query, key = parts.query(y), parts.key(y)
    if hasattr(attention, "_query_dense_layer_norm"):
        query = attention._query_dense_layer_norm(query)
        key = attention._key_dense_layer_norm(key)
    query, key = (
        attention.rotary_embedding_layer(part, start_index=positions[0]) for part in (query, key)
    )
    mixed, cache = cached_attention(
        query,
        key,
        parts.value(y),
        cache,
        positions,
        scale=attention._inv_norm_factor,
        window=_window(block, attention),
    )
    x = parts.output(mixed) + x
    y = block._feedforward_layernorm(x)
    gate = block.activation(block._feedforward_gate_dense(y))
    return block._feedforward_output_dense(
        block._feedforward_intermediate_dense(y) * gate
    ) + x, cache


def _window(block: Any, attention: Any) -> int | None:
    """Return how many tokens a query sees; None for all."""
    size = getattr(attention, "sliding_window_size", None)
    if not getattr(attention, "use_sliding_window_attention", bool(size)):
        size = None
    return size or getattr(block, "sliding_window", None)


def _gemma(block: Any, x: Any, positions: Any, cache: Cache) -> tuple[Any, Cache]:
    """Compute a block of Gemma, Gemma 2 or Gemma 3."""
    attention = block.attention
    y = block.pre_attention_norm(x)
    query, key = attention.query_dense(y), attention.key_dense(y)
    if getattr(attention, "use_query_key_norm", False):
        query, key = attention.query_norm(query), attention.key_norm(key)
    query, key = (attention._apply_rope(part, positions[0]) for part in (query, key))
    by_width = attention.query_head_dim_normalize
    width = attention.head_dim if by_width else attention.hidden_dim // attention.num_query_heads
    mixed, cache = cached_attention(
        query,
        key,
        attention.value_dense(y),
        cache,
        positions,
        scale=float(width) ** -0.5,
        window=_window(block, attention),
        soft_cap=attention.logit_soft_cap,
    )
    y = attention.output_dense(mixed)
    x = x + (block.post_attention_norm(y) if block.use_post_attention_norm else y)
    y = block.pre_ffw_norm(x)
    gate = keras.activations.gelu(block.gating_ffw(y), approximate=True)
    y = block.ffw_linear(gate * block.gating_ffw_2(y))
    return x + (block.post_ffw_norm(y) if block.use_post_ffw_norm else y), cache


def _phi(block: Any, x: Any, positions: Any, cache: Cache) -> tuple[Any, Cache]:
    """Compute a block of Phi-3."""
    attention = block.attention
    y = block.pre_attention_layernorm(x)
    query, key = (
        attention.rotary_embedding_layer(dense(y), start_index=positions[0])
        for dense in (attention.query_dense, attention.key_dense)
    )
    mixed, cache = cached_attention(
        query,
        key,
        attention.value_dense(y),
        cache,
        positions,
        scale=attention._inv_norm_factor,
    )
    x = attention.output_dense(mixed) + x
    y = block.post_attention_layernorm(x)
    gate = block.activation(block.feedforward_gate_dense(y))
    return block.feedforward_output_dense(block.feedforward_intermediate_dense(y) * gate) + x, cache


# By the class that defines `call_with_cache`.
_BLOCKS: dict[str, Block] = {
    "GPT2CausalLM": _transformer,
    "OPTCausalLM": _transformer,
    "LlamaCausalLM": _llama,
    "MistralCausalLM": _llama,
    "QwenCausalLM": _llama,
    "Qwen3CausalLM": _llama,
    "GemmaCausalLM": _gemma,
    "Gemma3CausalLM": _gemma,
    "Phi3CausalLM": _phi,
}


class KnownFamily:
    """A model whose blocks are in the table, as a `LanguageModel`.

    Args:
        model: A causal language model of KerasHub.
        block: What computes one of its blocks.
        shape: Heads of keys, and head width.
    """

    def __init__(self, model: Any, block: Block, shape: tuple[int, int]) -> None:
        self._backbone = model.backbone
        self._block = block
        self._shape = shape

    def cache_shapes(self, max_tokens: int) -> list[tuple[int, int, int, int]]:
        """Return the shape of the keys of each layer."""
        heads, width = self._shape
        return [(1, heads, max_tokens, width)] * self._backbone.num_layers

    def step(self, tokens: Any, positions: Any, caches: Sequence[Cache]) -> tuple[Any, list[Cache]]:
        """Compute the next tokens."""
        backbone, updated = self._backbone, []
        x = self._embed(tokens, positions)
        for block, old in zip(backbone.transformer_layers, caches, strict=True):
            x, cache = self._block(block, x, positions, old)
            updated.append(cache)
        if getattr(backbone, "layer_norm", None) is not None:
            x = backbone.layer_norm(x)
        return backbone.token_embedding(x, reverse=True), updated

    def _embed(self, tokens: Any, positions: Any) -> Any:
        backbone = self._backbone
        x = backbone.token_embedding(tokens)
        if self._block is _gemma:
            return x * float(backbone.hidden_dim) ** 0.5
        # OPT has a layer of tokens and positions.
        owner = getattr(backbone, "embeddings", backbone)
        if hasattr(owner, "position_embedding"):
            # A table that is looked up, not sliced, is stored in integers, too.
            x = x + owner.position_embedding(x, positions=positions)
        return x


def known_family(model: Any, shape: tuple[int, int]) -> KnownFamily | None:
    """Return a model of KerasHub as a `LanguageModel`; None if its family is in no table.

    Args:
        model: A model with `call_with_cache`.
        shape: Heads of keys, and head width.
    """
    owner = next(cls for cls in type(model).__mro__ if "call_with_cache" in vars(cls))
    block = _BLOCKS.get(owner.__name__) if owner.__module__.startswith("keras_hub.") else None
    return None if block is None else KnownFamily(model, block, shape)
