import keras
import numpy as np
from keras import layers, ops

import tfcompress as tfc


class Cached(layers.MultiHeadAttention):
    """An attention that can use a cache, as decoders have it."""

    def call(self, query, value, key=None, attention_mask=None, cache=None, training=None):
        query, key = self._query_dense(query), self._key_dense(value)
        value = self._value_dense(value)
        if cache is not None:
            key = ops.concatenate([cache, key], axis=1)
        out, _ = self._compute_attention(query, key, value, attention_mask, training=training)
        return self._output_dense(out)


class Doubled(Cached):
    def call(self, query, value, key=None, attention_mask=None, cache=None):
        return 2.0 * super().call(query, value, attention_mask=attention_mask)


class Decoder(layers.Layer):
    def __init__(self, kind, **kwargs):
        super().__init__(**kwargs)
        self.attention = kind(2, 4, name="attention")

    def call(self, x):
        causal = ops.cast(ops.tril(ops.ones((1, 3, 3))), "int32")
        return x + self.attention(x, x, attention_mask=causal, cache=None)


def test_attention_that_could_use_a_cache_is_that_of_keras_where_it_has_none():
    x = np.random.default_rng(0).normal(size=(2, 3, 8)).astype("float32")
    inputs = keras.Input((3, 8))
    for kind, found in ((Cached, {"MultiHeadAttention"}), (Doubled, set())):
        model = keras.Model(inputs, Decoder(kind, name="decoder")(inputs))
        opened = tfc.open_layers(model)
        np.testing.assert_array_equal(opened(x), model(x))
        kinds = {type(layer).__name__ for layer in opened.layers}
        assert kinds & {"Cached", "Doubled", "MultiHeadAttention"} == found
