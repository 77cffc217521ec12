"""Tables of positions that KerasHub broadcasts to each sample."""

from __future__ import annotations

from typing import Any

import keras

from tfcompress.model.graph import Node, all_nodes
from tfcompress.model.keras_private import renamed
from tfcompress.model.layers import Origin, original, rule_class
from tfcompress.model.opening.batch import ForEachSample
from tfcompress.model.opening.parameter import Parameter
from tfcompress.model.rebuild import rebuild_layers

__all__ = ["plain_positions"]

_TABLE = "keras_hub>PositionEmbedding"


def plain_positions(model: keras.Model) -> keras.Model:
    """Return a model in which a `PositionEmbedding` of KerasHub is a weight and its broadcasting.

    An int8 file has a form of each, which it has not of the layer as a whole.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> plain_positions(model) is model
    True

    Args:
        model: A functional or sequential model.

    Returns:
        A model that computes the same with the same weights; `model` itself if there is none, or
        none whose length is known.
    """
    tables = {id(node.operation) for node in all_nodes(model) if _is_plain(node)}
    tables -= {id(n.operation) for n in all_nodes(model) if not _is_plain(n)}
    if not tables:
        return model

    def copy(node: Node, args: Any, kwargs: Any) -> Any:
        operation = node.operation
        if not isinstance(operation, keras.layers.Layer):
            return operation
        origin = Origin(original([operation]) or (operation,))
        if id(operation) not in tables:
            twin = renamed(operation, operation.name)
            vars(twin)[Origin.NAME] = origin
            return twin
        variable, name = operation.position_embeddings, operation.name
        options = {"dtype": operation.dtype_policy}
        table = Parameter(variable.shape, variable, name=f"{name}_{variable.name}", **options)
        setattr(table, Origin.NAME, origin)

        def positions(x: Any, **_: Any) -> Any:
            rows = table(x)
            if x.shape[-2] != rows.shape[0]:
                rows = keras.ops.slice(rows, (0, 0), tuple(x.shape[-2:]))
            repeat = ForEachSample(tuple(rows.shape), name=name, **options)
            setattr(repeat, Origin.NAME, origin)
            return repeat(rows, x)

        return positions

    return rebuild_layers(model, copy)


def _is_plain(node: Node) -> bool:
    """Return whether a node is a table that begins at the first position, of a known length."""
    operation = node.operation
    if not isinstance(operation, keras.layers.Layer):
        return False
    given = node.call.arguments
    return bool(
        keras.saving.get_registered_name(rule_class(operation)) == _TABLE
        and len(given.args) == 1
        and not any(given.kwargs.get(name) for name in ("start_index", "positions"))
        and len(node.call.input_tensors) == 1
        and len(node.call.input_tensors[0].shape) == 3
        and node.call.input_tensors[0].shape[-2] is not None
    )
