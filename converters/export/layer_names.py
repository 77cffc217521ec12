"""Names in a traced graph -> the Keras layers of the model that was traced."""

from __future__ import annotations

import re

import keras

from tfcompress.model.layers import children


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
    for part in name.split(";"):
        path: list[str] = []
        layer: keras.Layer = model
        for scope in part.split("@")[0].split("/"):
            inside = {child.name: child for child in children(layer)}
            own = re.sub(r"_\d+$", "", scope)
            child = inside.get(own) or inside.get(scope)
            if child is not None:
                path.append(child.name)
                layer = child
        if path:
            return "/".join(path)
    return None
