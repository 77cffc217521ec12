"""Tensor names of a .tflite file -> paths of Keras layers, without the Keras model."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tfcompress.edge.ops import MAC_OPS

from .model import Inspection, Node
from .scopes import best_first


def layer_in(name: str) -> str | None:
    """Return the path of the layer that a tensor name contains.

    The path is what stands between the name of the model and the name of the op.

    >>> layer_in("net_1/encoder_1/dense_3_1/MatMul")
    'encoder/dense_3'

    Args:
        name: Name of a tensor. A fused op joins several names by ";": the first one that contains
            a layer counts.

    Returns:
        The path, or None if the name contains no layer.
    """
    for part in name.split(";"):
        _, *inside = part.split("@")[0].split("/")
        if len(inside) > 1:
            return "/".join(re.sub(r"_\d+$", "", scope) for scope in inside[:-1])
    return None


def scope_names(node: Node, found: Inspection) -> Iterator[str]:
    """Yield the names that may tell which layer an op comes from, the best one first.

    An op has no name of its own, so the names of its outputs are used. The outputs of the file are
    named after the signature; an op that computes one is found by the names of its inputs. The
    name of a fused op joins the names of its parts, and the part that multiplies is the best one.

    Args:
        node: The op.
        found: The file that holds the op.

    Yields:
        Names of tensors. The parts of a joined name are ordered, the best part first.
    """
    for place in (*node.outputs, *reversed(node.inputs)):
        name = found.tensors[place].name
        yield best_first(name) if node.op in MAC_OPS else name
