"""Transformers written by hand, of Keras' own attention layers, and samples for them."""

import keras
import numpy as np
from keras import layers

VOCABULARY, LENGTH, WIDTH, SAMPLES = 40, 8, 32, 8

ATTENTION = {
    "MultiHeadAttention": lambda **options: layers.MultiHeadAttention(4, 8, **options),
    "GroupQueryAttention": lambda **options: layers.GroupQueryAttention(8, 4, 2, **options),
}
MASKS = ("none", "padding", "causal")
BLOCKS = [f"{kind}, mask: {mask}" for kind in ATTENTION for mask in MASKS]


def block(name, flash_attention=False):
    """Return a model of one of `BLOCKS`, whose weights and biases are random, and samples for it.

    Args:
        name: One of `BLOCKS`.
        flash_attention: Given to the attention layer. Defaults to False.
    """
    kind, _, mask = name.partition(", mask: ")
    tokens = keras.Input((LENGTH,), dtype="int32", name="token_ids")
    inputs = {"token_ids": tokens}
    x = layers.Embedding(VOCABULARY, WIDTH, name="embed")(tokens)
    given = {}
    if mask == "padding":
        inputs["padding_mask"] = keras.Input((LENGTH,), dtype="int32", name="padding_mask")
        given["attention_mask"] = keras.ops.expand_dims(inputs["padding_mask"], 1)
    if mask == "causal":
        given["use_causal_mask"] = True
    for i in (1, 2):
        y = layers.LayerNormalization(name=f"norm_{i}")(x)
        attention = ATTENTION[kind](flash_attention=flash_attention, name=f"attention_{i}")
        x = layers.Add(name=f"sum_{i}")([x, attention(y, y, **given)])
        y = layers.LayerNormalization(name=f"mlp_norm_{i}")(x)
        y = layers.Dense(2 * WIDTH, activation="gelu", name=f"wide_{i}")(y)
        x = layers.Add(name=f"mlp_sum_{i}")([x, layers.Dense(WIDTH, name=f"narrow_{i}")(y)])
    x = layers.LayerNormalization(name="last_norm")(x)
    model = keras.Model(inputs, layers.Dense(WIDTH, name="head")(x), name=kind)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign_add(rng.normal(size=variable.shape) * 0.1)
    samples = {"token_ids": rng.integers(0, VOCABULARY, (SAMPLES, LENGTH)).astype("int32")}
    if mask == "padding":
        samples["padding_mask"] = np.ones((SAMPLES, LENGTH), "int32")
        samples["padding_mask"][SAMPLES // 2 :, -2:] = 0
    return model, samples
