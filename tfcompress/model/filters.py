"""`filters=`: which layers of a model a function works on. Every function means the same by it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import keras

from tfcompress.edge.arguments import check_function

from .layers import Lineage, original, walk

__all__ = ["Filters", "check", "matches", "select_layers"]

Filters: TypeAlias = (
    str | Sequence[str | keras.layers.Layer] | Callable[[keras.layers.Layer], bool] | None
)
"""A regular expression, a list of layers or names, a function of the layer, or `None` for all."""


def select_layers(
    model: keras.Model,
    filters: Filters,
    candidates: Iterable[tuple[str, Lineage]] | None = None,
    *,
    kind: str = "layer",
    hint: str = "",
    argument: str = "filters",
) -> set[int]:
    """Return the ids of the layers that `filters` selects.

    Every entry of a list must select a layer, and so must a regular expression or a function. This
    is the only place that raises for one that does not.

    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(8, name="a"), keras.layers.Dense(2, name="b")])
    >>> select_layers(model, ["b"]) == {id(model.get_layer("b"))}
    True

    Args:
        model: A built model.
        filters: Layers to select: a regular expression searched in the layer's path, a list of
            layers or names, a function of the layer, or None for all.
        candidates: Path and lineage of each layer that may be selected, as `walk` yields them.
            Defaults to every layer of the model, however deep.
        kind: What the candidates are, for the error. Defaults to `"layer"`.
        hint: A sentence that the error ends with: how other layers become candidates.
            Defaults to none.
        argument: Name of the argument, for the error. Defaults to `"filters"`.

    Returns:
        Set of `id(layer)`. It is empty only if there are no candidates and `filters` is None.

    Raises:
        TypeError: If `filters` has the wrong type.
        ValueError: If it is an invalid regular expression or an empty list, or if it or one of its
            entries selects none of the candidates.
    """
    check(filters, argument)
    places = [place for place in (walk(model) if candidates is None else candidates) if place[1]]
    for entry in _entries(filters):
        if not any(matches(entry, *place) for place in places):
            raise ValueError(_no_match(model, filters, entry, places, kind, hint, argument))
    return {id(lineage[-1]) for path, lineage in places if matches(filters, path, lineage)}


def check(filters: Filters, argument: str = "filters") -> None:
    """Raise if `filters` is not a regular expression, a list, a function or None.

    >>> check("conv|dense")

    Args:
        filters: Anything.
        argument: Name of the argument, for the error. Defaults to `"filters"`.

    Raises:
        TypeError: If it, or an entry of the list, has another type.
        ValueError: If it is not a valid regular expression, or is empty.
    """
    if isinstance(filters, str):
        if not filters:
            raise ValueError(
                f"`{argument}` is an empty text, which matches every path. "
                "Use None for the default."
            )
        try:
            re.compile(filters)
        except re.error as error:
            raise ValueError(
                f"`{argument}` is not a valid regular expression: {error}. Received: {filters!r}"
            ) from error
    elif isinstance(filters, list | tuple):
        if not filters:
            raise ValueError(
                f"`{argument}` is an empty list, which selects no layer. Use None for the default."
            )
        for entry in filters:
            if not isinstance(entry, str | keras.layers.Layer):
                raise TypeError(
                    f"`{argument}` as a list holds layers or names of layers. "
                    f"Received: {entry!r} of type {type(entry).__name__}"
                )
    elif callable(filters) and not isinstance(filters, keras.layers.Layer):
        check_function(argument, filters, "layer")
    elif filters is not None:
        raise TypeError(
            f"`{argument}` must be a regular expression, a list of layers or names, a function "
            "of a layer that returns a bool, or None for the default. "
            f"Received: {filters!r} of type {type(filters).__name__}"
        )


def matches(filters: Filters, path: str, lineage: Iterable[keras.layers.Layer]) -> bool:
    """Return whether `filters` selects the layer at `path`.

    The path joins the names from the model down to the layer: `"backbone/block_1/conv"`.

    - A regular expression is searched in the path (`re.search`): `"conv"`, `"^backbone/"`.
    - A list holds layers or names. A name is a layer's own, or its path. A layer that holds others
      (a nested model, `MultiHeadAttention`, `Bidirectional`) stands for all that it holds.
    - A function is called with the layer.
    - `None` selects every layer.

    >>> dense = keras.layers.Dense(4, name="head")
    >>> matches("^he", "head", [dense]), matches(["tail"], "head", [dense])
    (True, False)

    Args:
        filters: A regular expression, a list of layers or names, a function of the layer, or None
            for all.
        path: Names from the model down to the layer, joined by slashes.
        lineage: The layer and those around it, outermost first, without the model itself.

    Returns:
        True if the layer is selected.
    """
    if filters is None:
        return True
    lineage = list(lineage)
    before = original(lineage)
    names = "/".join(layer.name for layer in before)
    if before and not callable(filters) and matches(filters, names, before):
        return True
    if isinstance(filters, str):
        return re.search(filters, path) is not None
    if callable(filters):
        return bool(filters(lineage[-1]))
    return any(_selects(entry, path, lineage) for entry in filters)


def _selects(
    entry: str | keras.layers.Layer, path: str, lineage: Sequence[keras.layers.Layer]
) -> bool:
    if isinstance(entry, str):
        return (
            any(layer.name == entry for layer in lineage)
            or path == entry
            or path.startswith(entry + "/")
        )
    return any(layer is entry for layer in lineage)


def _entries(filters: Filters) -> Iterator[Filters]:
    """Every part that must select a layer, as filters of their own."""
    if isinstance(filters, list | tuple):
        yield from ([entry] for entry in filters)
    elif filters is not None:
        yield filters


def _no_match(
    model: keras.Model,
    filters: Filters,
    entry: Filters,
    places: Sequence[tuple[str, Lineage]],
    kind: str,
    hint: str,
    argument: str,
) -> str:
    name = None
    if isinstance(entry, str):
        name, what = entry, f"the regular expression {argument}={entry!r}"
    elif isinstance(entry, list):
        name = entry[0] if isinstance(entry[0], str) else entry[0].name
        what = f"{name!r} in `{argument}`"
        if not isinstance(entry[0], str):
            what = f"the layer {what}"
    else:
        what = f"{argument}={entry!r}: it returns False for all of them"
    paths = list(dict.fromkeys(path for path, _ in places))
    shown = ", ".join(paths[:_SHOWN]) or "none"
    if len(paths) > _SHOWN:
        shown += f" and {len(paths) - _SHOWN} more"
    sentences = [f"No {kind} in {model.name!r} matches {what}. There are: {shown}."]
    if isinstance(entry, list) and any(matches(entry, *place) for place in walk(model) if place[1]):
        sentences.append(f"{name!r} is a layer of the model, but not a {kind}.")
    elif isinstance(entry, list) and not isinstance(entry[0], str) and name in paths:
        sentences.append(
            f"The model has another layer of this name: give the name {name!r} instead."
        )
    elif name is not None and (close := _close(name, places)):
        sentences.append(f"Did you mean {' or '.join(map(repr, close))}?")
    elif isinstance(entry, str):
        sentences.append("The expression is searched in these paths.")
    elif isinstance(entry, list):
        sentences.append("Give a name or a path of these.")
    return " ".join([*sentences, hint]).strip()


_SHOWN = 40


def _close(name: str, places: Sequence[tuple[str, Lineage]]) -> list[str]:
    """Return up to three paths and names of layers that look like a name."""
    known = {part.name for _, lineage in places for part in lineage} | {path for path, _ in places}
    by_case = {candidate.lower(): candidate for candidate in sorted(known)}
    found = difflib.get_close_matches(name.lower(), by_case, n=3)
    return [by_case[candidate] for candidate in found]
