"""What operations do to the units along axes: join, split, reorder, reduce, one function for each.

All functions take and return `units.Labels`: the units along each axis of a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .units import FIXED, Coupling, Ids, Labels

__all__ = [
    "broadcast",
    "concatenate",
    "drop",
    "einsum",
    "fix_all",
    "index_parts",
    "reduce",
    "reshape",
    "sliced",
    "unite_all",
]


def fix_all(coupling: Coupling, labels: Labels, reason: str) -> None:
    """Keep all units on these axes, for a reason."""
    for ids in labels:
        coupling.fix(ids, reason)


def unite_all(coupling: Coupling, a: Labels, b: Labels, reason: str) -> None:
    """Unite the units of two tensors of one shape."""
    for left, right in zip(a, b, strict=True):
        if left is None or right is None or len(left) != len(right):
            coupling.fix(left, reason)
            coupling.fix(right, reason)
        else:
            coupling.unite(left, right)


def broadcast(coupling: Coupling, tensors: Iterable[Labels]) -> Labels:
    """Return the labels of an elementwise operation, which unites the units of axes that meet."""
    first, *others = tensors
    for other in others:
        rank = max(len(first), len(other))
        ones: Labels = (np.full(1, FIXED),) * rank
        pairs = zip(
            (*ones[: rank - len(first)], *first), (*ones[: rank - len(other)], *other), strict=True
        )
        first = tuple(_meet(coupling, a, b) for a, b in pairs)
    return first


def _meet(coupling: Coupling, a: Ids | None, b: Ids | None) -> Ids | None:
    if a is None or b is None:
        coupling.fix(a, "it meets an axis of unknown size")
        coupling.fix(b, "it meets an axis of unknown size")
        return None
    if len(a) == len(b):
        coupling.unite(a, b)
        return a
    return a if len(b) == 1 else b


def concatenate(coupling: Coupling, tensors: Sequence[Labels], axis: int) -> Labels:
    """Return the labels of a concatenation, which unites the units of all other axes."""
    axis %= len(tensors[0])
    others = broadcast(coupling, [(*x[:axis], *x[axis + 1 :]) for x in tensors])
    parts = [x[axis] for x in tensors]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        for part in known:
            coupling.fix(part, "it is joined to an axis of unknown size")
    joined = np.concatenate(known) if len(known) == len(parts) else None
    return (*others[:axis], joined, *others[axis:])


def reduce(
    coupling: Coupling, x: Labels, axes: Iterable[int] | None, keepdims: bool, what: str
) -> Labels:
    """Return the labels of a sum or mean, which keeps all units of the axes that it removes."""
    gone = {axis % len(x) for axis in (range(len(x)) if axes is None else axes)}
    for axis in gone:
        coupling.fix(x[axis], f"{what} over it")
    if keepdims:
        return tuple(np.full(1, FIXED) if i in gone else ids for i, ids in enumerate(x))
    return drop(x, gone)


def drop(x: Labels, axes: Iterable[int]) -> Labels:
    """Return the labels without some axes."""
    gone = {axis % len(x) for axis in axes}
    return tuple(ids for i, ids in enumerate(x) if i not in gone)


def sliced(ids: Ids | None, key: slice, size: int | None) -> Ids | None:
    """Return the units in a slice of an axis; `size` is the length of the result."""
    return None if ids is None or size is None else ids[key]


def index_parts(key: Any, rank: int) -> list[Any]:
    """Return an index with a part for each axis of a tensor, and None for each new axis."""
    parts = list(key) if isinstance(key, tuple) else [key]
    given = sum(part is not None and part is not Ellipsis for part in parts)
    rest = [slice(None)] * (rank - given)
    place = next((i for i, part in enumerate(parts) if part is Ellipsis), len(parts))
    return [*parts[:place], *rest, *parts[place + 1 :]]


def einsum(coupling: Coupling, equation: str, operands: Sequence[Labels]) -> Labels | None:
    """Return the labels of an einsum, which unites axes of one letter; None if axes are hidden.

    Axes are hidden behind an ellipsis.
    """
    terms, arrow, result = equation.replace(" ", "").partition("->")
    if not arrow:
        return None
    letters: dict[str, Ids | None] = {}
    for term, x in zip(terms.split(","), operands, strict=True):
        if "..." in term or len(term) != len(x):
            return None
        for letter, ids in zip(term, x, strict=True):
            letters[letter] = _meet(coupling, letters[letter], ids) if letter in letters else ids
    counts = {letter: terms.count(letter) for letter in letters}
    for letter, ids in letters.items():
        if letter not in result and counts[letter] == 1:
            coupling.fix(ids, "an einsum sums over it")
        elif letter not in result and ids is not None:
            coupling.multiplied.update(ids.tolist())
    return tuple(letters[letter] for letter in result)


def reshape(coupling: Coupling, x: Labels, shape: Sequence[int | None]) -> Labels:
    """Return the labels of a reshape, which merges and splits axes.

    A merged axis has the units of all axes that went into it. Where an axis is split, its longest
    part has units, each the union of the units that share a place: four after `(12,) -> (3, 4)`.
    """
    result: list[Ids | None] = []
    for before, after in _blocks([None if ids is None else len(ids) for ids in x], shape):
        labels = x[before]
        sizes = shape[after]
        if any(ids is None for ids in labels) or any(size is None for size in sizes):
            for ids in labels:
                coupling.fix(ids, "it is reshaped together with an axis of unknown size")
            result += [None if n is None else np.full(n, FIXED) for n in sizes]
        else:
            result += _reshape_block(coupling, [ids for ids in labels if ids is not None], sizes)
    return tuple(result)


def _blocks(
    before: Sequence[int | None], after: Sequence[int | None]
) -> Iterable[tuple[slice, slice]]:
    """Yield the shortest runs of axes that turn into each other."""
    i = j = 0
    while i < len(before) or j < len(after):
        start = i, j
        left, right = _size(before[i : i + 1]), _size(after[j : j + 1])
        i, j = min(i + 1, len(before)), min(j + 1, len(after))
        if left is None or right is None:
            same = left is right and _known(before[i:]) == _known(after[j:])
            if not same:  # the rest cannot be told apart
                i, j = len(before), len(after)
        while left is not None and right is not None and left != right:
            sizes, index = (before, i) if left < right else (after, j)
            size = sizes[index]
            if size is None:
                i, j = len(before), len(after)
                break
            if left < right:
                left, i = left * size, i + 1
            else:
                right, j = right * size, j + 1
        yield slice(start[0], i), slice(start[1], j)


def _known(sizes: Sequence[int | None]) -> int:
    return math.prod(size for size in sizes if size is not None)


def _size(sizes: Sequence[int | None]) -> int | None:
    return None if None in sizes else math.prod(size or 0 for size in sizes)


def _reshape_block(coupling: Coupling, x: Sequence[Ids], shape: Any) -> list[Ids]:
    result = [np.full(size, FIXED) for size in shape]
    cuttable = [axis for axis, ids in enumerate(x) if (ids != FIXED).any()]
    if len(cuttable) > 1:
        for ids in x:
            coupling.fix(ids, "two axes that could be cut are merged")
    if len(cuttable) != 1 or not shape:
        return result
    [axis] = cuttable
    along = [-1 if i == axis else 1 for i in range(len(x))]
    grid = np.broadcast_to(x[axis].reshape(along), [len(ids) for ids in x]).reshape(shape)
    rows = [np.moveaxis(grid, i, 0).reshape(size, -1) for i, size in enumerate(shape)]
    # An axis along which alone units change needs no union; else the longest.
    free = [bool((row == row[:, :1]).all()) for row in rows]
    best = max(range(len(shape)), key=lambda i: (free[i], shape[i]))
    for column in rows[best].T[1:]:
        coupling.unite(rows[best][:, 0], column)
    result[best] = rows[best][:, 0].copy()
    return result
