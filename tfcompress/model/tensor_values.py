"""The value of every tensor of a model, on one batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from .graph import functional, is_graph, nodes

__all__ = ["tensor_values"]


def tensor_values(model: keras.Model, inputs: list[Any]) -> Iterator[tuple[int, Any]]:
    """Yield every tensor of a model, and of the models in it, as it is computed, with its key.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.ReLU(), keras.layers.Flatten()])
    >>> values = dict(tensor_values(model, [keras.ops.ones((3, 2))]))
    >>> len(values), id(model.outputs[0]) in values
    (3, True)

    Args:
        model: A functional or sequential model.
        inputs: A tensor for each input, in the order of the model's inputs.

    Yields:
        `id` of the symbolic tensor, and its value. A nested model yields its own tensors at each of
        its calls.
    """
    graph = functional(model)
    values = {id(old): new for old, new in zip(graph.inputs, inputs, strict=True)}
    for node in nodes(model):
        if node.call.is_input:
            continue
        if is_graph(node.operation):
            given = [values[key] for key in node.inputs]
            inside = functional(node.operation)
            found = dict(tensor_values(node.operation, given))
            found.update({id(t): new for t, new in zip(inside.inputs, given, strict=True)})
            yield from found.items()
            outputs = [found[id(tensor)] for tensor in inside.outputs]
        else:
            args, kwargs = node.call.arguments.fill_in(values)
            outputs = keras.tree.flatten(node.operation(*args, **kwargs))
        for key, output in zip(node.outputs, outputs, strict=True):
            values[key] = output
            yield key, output
    yield from ((id(old), new) for old, new in zip(graph.inputs, inputs, strict=True))
