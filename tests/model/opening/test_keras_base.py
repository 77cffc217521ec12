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


class KeysWithoutBias(Cached):
    """Attention as in Whisper: of its projections, that of the keys has no bias."""

    def build(self, query_shape, value_shape, key_shape=None):
        super().build(query_shape, value_shape, key_shape)
        self._key_dense = layers.EinsumDense(
            "abc,cde->abde", (None, 2, 4), name="key", dtype=self.dtype_policy
        )
        self._key_dense.build(value_shape)


def test_attention_that_no_config_of_keras_makes_is_opened(tmp_path):
    inputs = keras.Input((3, 8))
    model = keras.Model(inputs, Decoder(KeysWithoutBias, name="decoder")(inputs))
    opened = tfc.open_layers(model)
    names = {layer.name for layer in opened.layers}
    softmax = "decoder_attention_dot_product_attention_softmax"
    assert {"decoder_attention_key", softmax} <= names
    opened.save(tmp_path / "opened.keras")
    x = np.random.default_rng(0).normal(size=(2, 3, 8)).astype("float32")
    for other in (opened, keras.models.load_model(tmp_path / "opened.keras")):
        np.testing.assert_array_equal(other(x), model(x))
