"""Tiny language models: one written by hand, and some of KerasHub's families."""

import string

import keras
import numpy as np
from keras import ops

from tests.support.helpers import need
from tfcompress import converters

VOCABULARY, ROOM = 50, 16
# One to a token, so that text is the same however it is cut.
CHARACTERS = string.ascii_letters[:VOCABULARY]
ENCODER = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 2,
    "num_heads": 4,
    "hidden_dim": 32,
    "intermediate_dim": 64,
    "max_sequence_length": 24,
}
DECODER = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 32,
    "intermediate_dim": 64,
}
BLOOM = {key: value for key, value in ENCODER.items() if key != "max_sequence_length"}
GEMMA_2 = {
    **DECODER,
    "head_dim": 8,
    "query_head_dim_normalize": False,
    "use_post_ffw_norm": True,
    "use_post_attention_norm": True,
    "final_logit_soft_cap": 30.0,
    "attention_logit_soft_cap": 50.0,
    "use_sliding_window_attention": True,
    "sliding_window_size": 4,
}
GEMMA_3 = {
    **DECODER,
    "num_layers": 6,  # five with a window, and one without and with other frequencies
    "image_size": 16,
    "head_dim": 8,
    "use_post_ffw_norm": True,
    "use_post_attention_norm": True,
    "use_sliding_window_attention": True,
    "sliding_window_size": 4,
}
FAMILIES = {
    "GPT-2": lambda hub: hub.GPT2CausalLM(hub.GPT2Backbone(**ENCODER)),
    "OPT": lambda hub: hub.OPTCausalLM(hub.OPTBackbone(**ENCODER)),
    "Llama": lambda hub: hub.LlamaCausalLM(hub.LlamaBackbone(**DECODER)),
    "Mistral": lambda hub: hub.MistralCausalLM(hub.MistralBackbone(**DECODER, sliding_window=4)),
    "Qwen": lambda hub: hub.QwenCausalLM(hub.QwenBackbone(**DECODER)),
    "Qwen 3": lambda hub: hub.Qwen3CausalLM(hub.Qwen3Backbone(**DECODER, head_dim=8)),
    "Gemma": lambda hub: hub.GemmaCausalLM(hub.GemmaBackbone(**DECODER, head_dim=8)),
    "Gemma 2": lambda hub: hub.GemmaCausalLM(hub.GemmaBackbone(**GEMMA_2)),
    "Gemma 3": lambda hub: hub.Gemma3CausalLM(None, hub.Gemma3Backbone(**GEMMA_3)),
    "Phi-3": lambda hub: hub.Phi3CausalLM(hub.Phi3Backbone(**DECODER)),
    "Bloom": lambda hub: hub.BloomCausalLM(hub.BloomBackbone(**BLOOM)),  # in no table
}


def causal_lm(name, families=FAMILIES):
    """Return a model of KerasHub whose weights are random."""
    try:
        import keras_hub
    except ImportError:
        need(
            False, "pip install -c constraints.txt -e '.[test]' brings keras-hub, which is missing"
        )
    return shaken(families[name](keras_hub.models))


def shaken(model):
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign_add(rng.normal(size=variable.shape) * 0.1)
    return model


class ByHand(keras.Model):
    """Two layers of attention with two heads each, and sinusoidal positions."""

    def __init__(self, width=8, **options):
        super().__init__(**options)
        self.width = width
        self.embed = keras.layers.Embedding(VOCABULARY, width, name="embed")
        self.parts = [keras.layers.Dense(3 * width, name=f"attention_{i}") for i in range(2)]
        self.head = keras.layers.Dense(VOCABULARY, name="head")

    def cache_shapes(self, max_tokens):
        return [(1, 2, max_tokens, self.width // 2)] * 2

    def step(self, tokens, positions, caches):
        x, updated = self._start(tokens, positions), []
        for part, cache in zip(self.parts, caches, strict=True):
            query, key, value = self._heads(part(x))
            y, cache = converters.cached_attention(query, key, value, cache, positions)
            x = x + ops.reshape(y, (1, -1, self.width))
            updated.append(cache)
        return self.head(x), updated

    def call(self, tokens):
        """Compute the same without a cache, by attention written out."""
        length = tokens.shape[1]
        x = self._start(tokens, ops.arange(length))
        seen = np.tril(np.ones((length, length), bool))
        for part in self.parts:
            query, key, value = self._heads(part(x))
            scores = ops.einsum("bihw,bjhw->bhij", query, key) / (self.width / 2) ** 0.5
            weights = ops.softmax(ops.where(seen, scores, -1e9))
            y = ops.einsum("bhij,bjhw->bihw", weights, value)
            x = x + ops.reshape(y, (-1, length, self.width))
        return self.head(x)

    def _heads(self, x):
        """Return queries, keys and values of two heads."""
        return ops.split(ops.reshape(x, (-1, x.shape[1], 6, self.width // 2)), 3, axis=2)

    def _start(self, tokens, positions):
        speeds = np.geomspace(1, 0.1, self.width // 2, dtype="float32")
        angles = ops.cast(positions, "float32")[:, None] * speeds
        return self.embed(tokens) + ops.concatenate([ops.sin(angles), ops.cos(angles)], -1)


def by_hand(width=8):
    """Return the model written by hand, built, whose weights are random."""
    keras.utils.set_random_seed(0)
    model = ByHand(width, name="by_hand")
    model(np.zeros((1, 4), "int32"))
    return shaken(model)


def character_tokenizer():
    """Return a tokenizer of single characters."""
    try:
        import tokenizers
    except ImportError:
        need(False, "keras-hub brings the package tokenizers, which is missing")
    vocabulary = {character: index for index, character in enumerate(CHARACTERS)}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges=[]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    made.decoder = tokenizers.decoders.ByteLevel()
    return made
