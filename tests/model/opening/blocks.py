"""Layers made of layers, as people write them."""

import keras
from keras import layers, ops


class Mlp(layers.Layer):
    """Two dense layers, the first with a function of the user's own as its activation."""

    def __init__(self, width, dtype=None, **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.wide = layers.Dense(
            4 * width,
            lambda x: keras.activations.gelu(x, approximate=True),
            name="wide",
            dtype=dtype,
        )
        self.narrow = layers.Dense(width, name="narrow", dtype=dtype)
        self.drop = layers.Dropout(0.5, seed=1, name="drop", dtype=dtype)

    def call(self, x, training=None):
        return self.drop(self.narrow(self.wide(x)), training=training)


class Block(layers.Layer):
    """A block of a transformer, with a mask and a scale of its own."""

    def __init__(self, heads=2, width=8, dtype=None, **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.norm = layers.LayerNormalization(name="norm", dtype=dtype)
        self.attention = layers.MultiHeadAttention(
            heads, width // heads, name="attention", dtype=dtype
        )
        self.mlp = Mlp(width, name="mlp", dtype=dtype)
        self.scale = self.add_weight((width,), name="scale")
        self.supports_masking = True

    def build(self, shape):
        self.scale.assign(0.5 + ops.arange(shape[-1]) / shape[-1])

    def call(self, x, mask=None, training=None):
        y = self.norm(x)
        mask = None if mask is None else mask[:, None, :]
        x = x + self.scale * self.attention(y, y, attention_mask=mask, training=training)
        return x + self.mlp(x, training=training)


def classifier(dtype=None):
    """Token ids (4,) -> an embedding with a mask, a block called twice, another block, logits."""
    ids = keras.Input((4,), dtype="int32", name="ids")
    x = layers.Embedding(12, 8, mask_zero=True, name="embedding", dtype=dtype)(ids)
    shared = Block(name="shared", dtype=dtype)
    x = Block(name="own", dtype=dtype)(shared(shared(x)))
    x = layers.GlobalAveragePooling1D(name="pool", dtype=dtype)(x)
    return keras.Model(ids, Mlp(8, name="head", dtype=dtype)(x), name="classifier")
