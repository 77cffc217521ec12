"""Embeddings that could give logits, too, and are not asked to."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from tfcompress.model.graph import Node, all_nodes
from tfcompress.model.keras_private import renamed
from tfcompress.model.layers import Origin, original, rule_class
from tfcompress.model.rebuild import rebuild_layers

__all__ = ["plain_embeddings"]


def plain_embeddings(model: keras.Model) -> keras.Model:
    """Return a model in which a `ReversibleEmbedding` that only looks rows up is an `Embedding`.

    An int8 file has a form of that. A table that heads share stays as it is.

    >>> tokens = keras.Input((4,), dtype="int32")
    >>> table = layers.ReversibleEmbedding(8, 2, name="table")
    >>> plain = plain_embeddings(keras.Model(tokens, table(tokens)))
    >>> type(plain.get_layer("table")).__name__
    'Embedding'

    Args:
        model: A functional or sequential model.

    Returns:
        A model that computes the same with the same weights; `model` itself if there is none.
    """
    tables = {
        id(node.operation): node.operation
        for node in all_nodes(model)
        if isinstance(node.operation, layers.Layer)
        and rule_class(node.operation) is layers.ReversibleEmbedding
    }
    for node in all_nodes(model):
        if id(node.operation) in tables and _is_reversed(node):
            del tables[id(node.operation)]
    tables = {key: layer for key, layer in tables.items() if layer.tie_weights}
    if not tables:
        return model

    def copy(node: Node, args: Any, kwargs: Any) -> Any:
        operation = node.operation
        if not isinstance(operation, layers.Layer):
            return operation
        table = id(operation) in tables
        twin = renamed(operation, operation.name, layers.Embedding if table else None)
        vars(twin)[Origin.NAME] = Origin(original([operation]) or (operation,))
        return (lambda inputs, reverse=False: twin(inputs)) if table else twin

    return rebuild_layers(model, copy)


def _is_reversed(node: Node) -> bool:
    given = node.call.arguments
    return bool(given.kwargs.get("reverse", len(given.args) > 1 and given.args[1]))
