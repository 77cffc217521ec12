"""Names in a quantization-aware model: its outputs are called as those of the float model."""

from __future__ import annotations

from typing import Any

import keras

from tfcompress.model.graph import functional, nodes
from tfcompress.model.keras_private import renamed
from tfcompress.model.signature import unique_names

from .placement import Placement, heads

__all__ = ["free_name", "name_outputs", "original", "original_name"]

_PREFIX = "quantized_"


def name_outputs(model: keras.Model, placement: Placement) -> None:
    """Give the layers that make the outputs of the copy the names of those that make the model's.

    The layers and operations that have these names are noted to be wrapped, or to get another name.

    Args:
        model: The original model.
        placement: What is done along its graph; the names are filled in.
    """
    graph = nodes(model)
    producers = {key: node for node in graph for key in node.outputs}
    head_of = heads(graph, placement.wrapped)
    keys = [id(tensor) for tensor in functional(model).outputs]
    names = unique_names([producers[key].name for key in keys])
    others = {node.name for node in graph}
    named: set[str] = set()
    for key, name in zip(keys, names, strict=True):
        node = producers[key]
        operation, root = head_of.get(id(node.call), node.operation), placement.ranges.get(key)
        taken = name != node.name and name in others
        if node.call.is_input or root in named or taken:
            continue
        if root is None:
            placement.ends.setdefault(id(operation), name)
            continue
        named.add(root)
        placement.names[root] = name
        if isinstance(operation, keras.layers.Layer):
            placement.wrapped.setdefault(id(operation), [])
        else:
            placement.freed.add(id(operation))


def free_name(operation: Any) -> Any:
    """Return an operation of `keras.ops` with another name, so that its range can have its own."""
    return renamed(operation, _PREFIX + operation.name)


def original_name(operation: Any) -> str:
    """Return the name that a layer or an operation has in the float model."""
    name = str(operation.name)
    layer = isinstance(operation, keras.layers.Layer)
    return name if layer else name.removeprefix(_PREFIX)


def original(operation: Any) -> Any:
    """Return an operation of `keras.ops` as it was before `free_name`."""
    name = original_name(operation)
    return operation if name == operation.name else renamed(operation, name)
