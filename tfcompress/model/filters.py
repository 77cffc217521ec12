"""`filters=`: which layers a function is meant for. One meaning everywhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import keras

__all__ = ["Filters", "check", "matches"]

Filters: TypeAlias = (
    str | Sequence[str | keras.layers.Layer] | Callable[[keras.layers.Layer], bool] | None
)
"""A regular expression, a list of layers or names, a function of the layer, or `None` for all."""


def check(filters: Filters) -> None:
    """Raise if `filters` is none of the four things that it may be.

    Raises:
        TypeError: If it is of another type.
        ValueError: If it is not a valid regular expression, or an empty list.
    """
    if isinstance(filters, str):
        try:
            re.compile(filters)
        except re.error as error:
            raise ValueError(
                f"`filters` is not a valid regular expression: {error}. Received: {filters!r}"
            ) from error
    elif isinstance(filters, list | tuple):
        if not filters:
            raise ValueError("`filters` is empty, so no layer is meant. Use None for all layers.")
        for entry in filters:
            if not isinstance(entry, str | keras.layers.Layer):
                raise TypeError(
                    "`filters` as a list holds layers or names of layers. "
                    f"Received: {entry!r} of type {type(entry).__name__}"
                )
    elif filters is not None and (isinstance(filters, keras.layers.Layer) or not callable(filters)):
        raise TypeError(
            "`filters` must be a regular expression, a list of layers or names, a function "
            "of a layer that returns a bool, or None for all layers. "
            f"Received: {filters!r} of type {type(filters).__name__}"
        )


def matches(filters: Filters, path: str, lineage: Iterable[keras.layers.Layer]) -> bool:
    """Whether `filters` means the layer at `path`.

    The path joins the names from the model down to the layer: `"backbone/block_1/conv"`.

    - A regular expression is searched in the path (`re.search`): `"conv"`, `"^backbone/"`.
    - A list holds layers or names. A name is a layer's own, or its path. A layer that holds others
      (a nested model, `MultiHeadAttention`, `Bidirectional`) means all that it holds.
    - A function is called with the layer.
    - `None` means every layer.

    >>> dense = keras.layers.Dense(4, name="head")
    >>> matches("^he", "head", [dense]), matches(["tail"], "head", [dense])
    (True, False)

    Args:
        filters: The above.
        path: Where the layer stands in its model.
        lineage: The layer and those around it, outermost first; the model itself left out.

    Returns:
        True if it is meant.
    """
    if filters is None:
        return True
    if isinstance(filters, str):
        return re.search(filters, path) is not None
    lineage = list(lineage)
    if callable(filters):
        return bool(filters(lineage[-1]))
    return any(_means(entry, path, lineage) for entry in filters)


def _means(
    entry: str | keras.layers.Layer, path: str, lineage: Sequence[keras.layers.Layer]
) -> bool:
    if isinstance(entry, str):
        return (
            any(layer.name == entry for layer in lineage)
            or path == entry
            or path.startswith(entry + "/")
        )
    return any(layer is entry for layer in lineage)
