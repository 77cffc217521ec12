"""Vocabulary pruning: tables of embeddings keep the rows of the tokens that are used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfcompress.edge.arguments import check_integer, check_text, refuse
from tfcompress.model.checks import check_finite
from tfcompress.model.filters import Filters, check, select_layers
from tfcompress.model.functionalize import with_graph
from tfcompress.model.graph import Node, functional, is_graph, nodes
from tfcompress.model.layers import walk
from tfcompress.model.quantized import is_quantized
from tfcompress.model.rebuild import copy_layer, from_config, rebuild_layers, warn_of_untied

__all__ = ["PrunedVocabulary", "prune_vocabulary"]

Array = npt.NDArray[Any]

_PASSING = ("Cast", "Identity", "Copy")
"""Operations that hand ids on as they are."""


@dataclass(frozen=True, eq=False)
class PrunedVocabulary:
    """The result of `prune_vocabulary`.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Embedding(9, 4)])
    >>> prune_vocabulary(model, [3, 8]).new_ids.tolist()
    [-1, -1, -1, 0, -1, -1, -1, -1, 1]

    Attributes:
        model: The new model, not compiled.
        old_ids: For each new id the old one, int64 of shape `(kept,)`, in rising order.
        new_ids: For each old id the new one, int64 of shape `(vocabulary,)`. For a token that is
            gone, the new id of `unknown`; -1 without `unknown`.
    """

    model: keras.Model = field(repr=False)
    old_ids: Array
    new_ids: Array

    def translate(self, tokens: Any) -> Array:
        """Return token ids of the old model as those of the new one.

        Args:
            tokens: Integers of any shape.

        Returns:
            Integers of the same shape and dtype.

        Raises:
            ValueError: A token is gone, and there is no `unknown`; or an id is out of range.
        """
        old = _ids("tokens", tokens, len(self.new_ids))
        found = self.new_ids[old]
        if (found < 0).any():
            gone = np.unique(old[found < 0])
            raise ValueError(
                f"{len(gone)} token(s) are not in the new vocabulary, such as {int(gone[0])}. Give "
                "them to prune_vocabulary(keep=...), or name a token for all others with unknown="
            )
        return np.asarray(found.astype(old.dtype))


def prune_vocabulary(
    model: keras.Model,
    tokens: Any,
    *,
    keep: Any = (),
    unknown: int | None = None,
    input: str | None = None,
    heads: Filters = None,
) -> PrunedVocabulary:
    """Cut the table of a language model to the tokens that a data set uses.

    The table of a small encoder is half of its weights, and one task or one language needs a few
    thousand of its rows. Tokens get new ids, in the order of the old ones. On those that are kept,
    the new model computes the same numbers. Give all data that the model will see, or name in
    `unknown` the token that stands for the others.

    >>> ids = keras.Input((3,), dtype="int32", name="ids")
    >>> model = keras.Model(ids, keras.layers.Embedding(1000, 4)(ids))
    >>> small = prune_vocabulary(model, [[7, 7, 500]], keep=[0, 1], unknown=1)
    >>> small.model.count_params(), small.old_ids.tolist()
    (16, [0, 1, 7, 500])
    >>> small.translate([500, 999, 7]).tolist()
    [3, 1, 2]

    Args:
        model: A built model; subclassed, if its `call` can be traced. It stays as it is.
        tokens: The ids that are used: integers of any shape, or an iterable of such arrays.
        keep: More ids to keep, such as those of special tokens: integers of any shape. Defaults to
            none.
        unknown: Id that stands for all that are gone; it is kept. Defaults to None.
        input: Name of the model's input that takes the ids. Defaults to None: the one whose table
            has the most rows.
        heads: Dense layers that give a score for each token, which are cut to the scores of those
            that are kept: a regular expression, a list of layers or names, or a function of the
            layer. Heads that share the table, or a `ReversibleEmbedding` with a kernel of its own,
            are cut by themselves. Defaults to None, no others.

    Returns:
        The model, and the ids: `.model`, `.old_ids`, `.new_ids`, `.translate(tokens)`.

    Raises:
        TypeError: `model` is no Keras model, or an argument has the wrong type.
        ValueError: The model is not built, cannot be traced, is quantization-aware or holds NaN; no
            table reads the input, or something else reads the ids; an id is out of range, or there
            is none; or a layer in `heads` has another number of units than the table has rows.
    """
    if input is not None:
        check_text("input", input)
    check(heads, "heads")
    model = with_graph(model)
    if is_quantized(model):
        raise ValueError(
            f"The model {model.name!r} is quantization-aware. Prune its vocabulary before "
            "`quantize_aware`, or that of what `strip` gives back."
        )
    check_finite(model)
    tables = _tables(model, input)
    sizes = sorted({int(table.input_dim) for table in tables})
    if len(sizes) > 1:
        raise ValueError(
            f"The tables that read these ids have {' and '.join(map(str, sizes))} rows: "
            f"{', '.join(repr(table.name) for table in tables)}."
        )
    size = sizes[0]
    used = [_ids("tokens", part, size).ravel() for part in _parts(tokens)]
    kept = _ids("keep", keep, size).ravel()
    if not sum(map(len, used)) + len(kept):
        refuse("tokens", "one or more token ids", tokens)
    if unknown is not None:
        kept = np.append(kept, check_integer("unknown", unknown, 0, size - 1))
    if any(table.mask_zero for table in tables):
        kept = np.append(kept, 0)  # zero stays the id that masks
    old = np.unique(np.concatenate([*used, kept]).astype(np.int64))
    new = np.full(size, -1 if unknown is None else int(np.searchsorted(old, unknown)))
    new[old] = np.arange(len(old))
    dense = _heads(model, heads, size)
    warn_of_untied(model)
    return PrunedVocabulary(rebuild_layers(model, _Cut(tables, dense, old).copy), old, new)


def _parts(tokens: Any) -> Iterable[Any]:
    """Return arrays of ids."""
    if isinstance(tokens, Iterator) or (
        isinstance(tokens, Iterable) and not isinstance(tokens, list | tuple | np.ndarray | str)
    ):
        return tokens
    return [tokens]


def _ids(name: str, tokens: Any, size: int) -> Array:
    if isinstance(tokens, str | bytes | Mapping) or tokens is None:
        refuse(name, "token ids: integers of any shape", tokens, TypeError)
    try:
        array = np.asarray(tokens)
    except ValueError:
        refuse(name, "token ids: an array of integers, with rows of one length", tokens)
    if array.size == 0:
        return np.zeros(0, np.int64)
    if array.dtype.kind not in "iu":
        refuse(name, "token ids: integers of any shape", tokens, TypeError)
    if array.min() < 0 or array.max() >= size:
        wrong = int(array.min() if array.min() < 0 else array.max())
        raise ValueError(f"`{name}` holds the id {wrong}; the table has the rows 0 to {size - 1}.")
    return array


def _tables(model: keras.Model, name: str | None) -> list[keras.layers.Embedding]:
    """Return the tables that read an input of a model, and those of inputs that share one."""
    graph = functional(model)
    names = [tensor.name for tensor in graph.inputs]
    if name is not None and name not in names:
        refuse("input", f"one of the model's inputs, {', '.join(names)}", name)
    found: dict[str, list[keras.layers.Embedding]] = {}
    others: dict[str, list[str]] = {}
    for tensor in graph.inputs:
        looked_up: dict[int, keras.layers.Embedding] = {}
        rest: list[str] = []
        _follow(model, {id(tensor)}, looked_up, rest)
        found[tensor.name], others[tensor.name] = list(looked_up.values()), rest
    read = {key: own for key, own in found.items() if own}
    if not read or (name is not None and name not in read):
        raise ValueError(
            f"No table of the model {model.name!r} reads {'an input' if name is None else name!r}: "
            "an Embedding layer that is called with it."
        )
    chosen = name or max(read, key=lambda key: max(int(t.input_dim) for t in read[key]))
    tables = {id(table): table for table in read[chosen]}
    for key, own in read.items():
        if not tables.keys().isdisjoint(map(id, own)):
            tables |= {id(table): table for table in own}
            if others[key]:
                raise ValueError(
                    f"New ids would change what {', '.join(map(repr, others[key]))} computes from "
                    f"{key!r}. Give the model this as an input of its own, such as a padding mask."
                )
    return list(tables.values())


def _follow(
    model: keras.Model, ids: set[int], tables: dict[int, keras.layers.Embedding], rest: list[str]
) -> list[bool]:
    """Follow token ids through a model: note the tables, and what else reads the ids.

    Returns:
        For each output of the model, whether it holds ids.
    """
    for node in nodes(model):
        if node.call.is_input or not ids.intersection(node.inputs):
            continue
        layer = node.operation
        if is_graph(layer):
            inner = functional(layer).inputs
            mine = {id(t) for t, key in zip(inner, node.inputs, strict=True) if key in ids}
            outputs = _follow(layer, mine, tables, rest)
            ids |= {key for key, held in zip(node.outputs, outputs, strict=True) if held}
        elif isinstance(layer, keras.layers.Embedding) and not _reversed(node):
            tables[id(layer)] = layer
        elif type(layer).__name__ in _PASSING:
            ids |= set(node.outputs)
        else:
            rest.append(node.name)
    return [id(tensor) in ids for tensor in functional(model).outputs]


def _reversed(node: Node) -> bool:
    return bool(node.call.arguments.kwargs.get("reverse"))


def _heads(model: keras.Model, heads: Filters, size: int) -> set[int]:
    """Return the ids of the dense layers to cut."""
    if heads is None:
        return set()
    places = [
        (path, lineage)
        for path, lineage in walk(model)
        if lineage and isinstance(lineage[-1], keras.layers.Dense)
    ]
    chosen = select_layers(model, heads, places, kind="dense layer", argument="heads")
    for path, (*_, layer) in places:
        if id(layer) in chosen and layer.units != size:
            raise ValueError(
                f"Layer {path!r} in `heads` gives {layer.units} scores, and the table has {size} "
                "rows. Select those that give a score for each token."
            )
    return chosen


class _Cut:
    """Copies the layers of a model, with cut tables and heads."""

    def __init__(self, tables: list[keras.layers.Embedding], heads: set[int], old: Array) -> None:
        self.tables = {id(table) for table in tables}
        self.heads = heads
        self.old = old

    def copy(self, node: Node, args: Any, kwargs: Any) -> Any:
        operation = node.operation
        if not isinstance(operation, keras.layers.Layer):
            return operation
        count = len(self.old)
        if id(operation) in self.tables:
            config = {**operation.get_config(), "input_dim": count}
            return from_config(operation, config, args, kwargs, self.rows)
        if id(operation) in self.heads:
            config = {**operation.get_config(), "units": count}
            return from_config(operation, config, args, kwargs, self.scores)
        return copy_layer(operation, args, kwargs)

    def rows(self, variable: keras.Variable) -> Array:
        """Return the rows of a table, or the columns of the kernel that goes back to tokens."""
        array = np.asarray(keras.ops.convert_to_numpy(variable))
        return array[:, self.old] if "reverse" in variable.name else array[self.old]

    def scores(self, variable: keras.Variable) -> Array:
        return np.asarray(keras.ops.convert_to_numpy(variable))[..., self.old]
