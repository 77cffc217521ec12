"""Names in a converted graph -> the Keras layers that they came from."""

from __future__ import annotations

import re

import keras

from tfcompress.model.layers import children


def layer_at(model: keras.Model, name: str) -> str | None:
    """Path of the layer that an op or tensor was traced in, such as "encoder/dense_3".

    Keras opens a name scope per layer twice, once to build and once to call it, so that in
    "model_1/dense_3_1/MatMul" each layer's name carries one suffix more than its own.

    Example:
    >>> head = keras.layers.Dense(2, name="head")
    >>> model = keras.Sequential([keras.Input((4,)), head], name="net")
    >>> layer_at(model, "net_1/head_1/MatMul")
    'head'

    Args:
        model: The model that was traced.
        name: Of an op or tensor; of the parts joined by ";" (fused ops), the first that leads to a
            layer counts.

    Returns:
        The path below the model, or None when no layer is named.
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


def layer_in(name: str) -> str | None:
    """As `layer_at`, without the model: what lies between the model's scope and the op's.

    Example:
    >>> layer_in("net_1/encoder_1/dense_3_1/MatMul")
    'encoder/dense_3'

    Args:
        name: Of an op or tensor; of the parts joined by ";", the first that names a layer counts.

    Returns:
        The path, or None when there is none.
    """
    for part in name.split(";"):
        _, *inside = part.split("@")[0].split("/")
        if len(inside) > 1:
            return "/".join(re.sub(r"_\d+$", "", scope) for scope in inside[:-1])
    return None
