"""Names in a traced graph -> the Keras layers of the model that was traced."""

from __future__ import annotations

from typing import Any

import keras

from tfcompress.converters.file.scopes import path_in
from tfcompress.model.layers import children

Tree = dict[str, Any]


def layer_at(model: keras.Model, name: str) -> str | None:
    """Return the path of the layer in which an op or tensor was traced.

    Keras opens the name scope of a layer twice, to build the layer and to call it. A name in the
    graph therefore carries one numeric suffix more than the layer: "model_1/dense_3_1/MatMul"
    belongs to the layer "dense_3".

    >>> head = keras.layers.Dense(2, name="head")
    >>> model = keras.Sequential([keras.Input((4,)), head], name="net")
    >>> layer_at(model, "net_1/head_1/MatMul")
    'head'

    Args:
        model: The model that was traced.
        name: Name of an op or tensor. A fused op joins several names by ";": the first one that
            leads to a layer counts.

    Returns:
        The path below the model, or None if the name leads to no layer.
    """
    return path_in(model, _inside, name)


def layer_tree(model: keras.Model) -> Tree:
    """Return the names of all layers, each with those inside it, as plain values for a child.

    >>> inputs = keras.Input((4,), name="x")
    >>> layer_tree(keras.Sequential([inputs, keras.layers.Dense(2, name="head")]))
    {'x': {}, 'head': {}}

    Args:
        model: The model.

    Returns:
        Name of each layer directly inside -> the tree of that layer.
    """
    return {name: layer_tree(layer) for name, layer in _inside(model).items()}


def _inside(layer: keras.Layer) -> dict[str, keras.Layer]:
    return {child.name: child for child in children(layer)}
