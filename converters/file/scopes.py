"""Names of a traced graph -> paths of layers. Imports nothing, for child processes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")

_MULTIPLIES = re.compile("conv|matmul|depthwise|einsum|dot", re.IGNORECASE)


def path_in(root: T, inside: Callable[[T], Mapping[str, T]], name: str) -> str | None:
    """Return the path of the layer in which an op or tensor was traced.

    Keras opens the name scope of a layer twice, to build the layer and to call it. A name in the
    graph therefore carries one numeric suffix more than the layer: "model_1/dense_3_1/MatMul"
    belongs to the layer "dense_3".

    >>> net = {"encoder": {"dense": {}, "dense_1": {}}}
    >>> path_in(net, lambda layers: layers, "net_1/encoder_1/dense_1_1/MatMul")
    'encoder/dense_1'

    Args:
        root: The model.
        inside: Returns the layers directly inside a layer, by name.
        name: Name of an op or tensor. A fused op joins several names by ";": the first one that
            leads to a layer counts.

    Returns:
        The path below the model, or None if the name leads to no layer.
    """
    for part in name.split(";"):
        path: list[str] = []
        layer = root
        for scope in part.split("@")[0].split("/"):
            layers = inside(layer)
            own = re.sub(r"_\d+$", "", scope)
            found = own if own in layers else scope if scope in layers else None
            if found is not None:
                path.append(found)
                layer = layers[found]
        if path:
            return "/".join(path)
    return None


def best_first(name: str) -> str:
    """Return the name of a fused op that multiplies, with the part first that multiplies.

    >>> best_first("net/bn/Add;net/conv/Conv2D")
    'net/conv/Conv2D;net/bn/Add'

    Args:
        name: Names of the parts, joined by ";".

    Returns:
        The same parts in another order.
    """
    parts = name.split(";")
    parts.sort(key=lambda part: not _MULTIPLIES.search(part.rsplit("/", 1)[-1]))
    return ";".join(parts)
