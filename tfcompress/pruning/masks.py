"""Masks from scores: which weights stay. Pure functions on NumPy arrays.

A mask is a boolean array, True where the weight stays. The weights with the lowest scores are
removed; among equal scores, the weights that come first in memory. So the number of zeros is exact,
and equal scores always give equal masks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from tfcompress.edge.arguments import check_choice, check_integer, check_number, refuse

from .patterns import FAST_DENSE, SMALL_FILE, Block, NofM, Structure

__all__ = [
    "FAST_DENSE",
    "SMALL_FILE",
    "Block",
    "NofM",
    "Structure",
    "blocks",
    "compute",
    "global_budget",
    "n_of_m",
    "per_layer",
    "threshold",
]

_SAMPLE_EVERY = 29  # a prime, so that no kernel axis is a multiple of it

Scores: TypeAlias = npt.NDArray[Any]
Mask: TypeAlias = npt.NDArray[np.bool_]
Axes: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]
"""Output axes (rows) and input axes (columns) of a kernel; the rest are spatial."""


def threshold(scores: Scores, limit: float) -> Mask:
    """Return a mask that keeps the scores above a limit.

    >>> threshold(np.array([0.1, 0.3, 0.2]), 0.2).tolist()
    [False, True, False]

    Args:
        scores: Array of any shape.
        limit: The highest score that is removed.

    Returns:
        Boolean array of the same shape.
    """
    scores = _checked("scores", scores)
    mask: Mask = np.asarray(scores > check_number("limit", limit))
    return mask


def per_layer(scores: Scores, sparsity: float) -> Mask:
    """Return a mask that keeps all but the lowest `round(sparsity * scores.size)` scores.

    >>> per_layer(np.array([0.1, 0.3, 0.2, 0.2]), 0.5).tolist()
    [False, True, False, True]

    Args:
        scores: Array of any shape.
        sparsity: Share that is removed, in [0, 1].

    Returns:
        Boolean array of the same shape.
    """
    return _keep_share(_checked("scores", scores), check_number("sparsity", sparsity, 0, 1))


def global_budget(scores: Sequence[Scores], nonzeros: int) -> list[Mask]:
    """Return masks that keep the `nonzeros` highest scores of all arrays together.

    >>> [mask.tolist() for mask in global_budget([np.array([1, 9]), np.array([2, 8, 7])], 3)]
    [[False, True], [False, True, True]]

    Args:
        scores: Arrays of any shapes, on one scale.
        nonzeros: How many weights stay; all of them if there are no more.

    Returns:
        A boolean array for each array of scores, of its shape.
    """
    arrays = _all_checked(scores)
    flat = np.concatenate([array.ravel() for array in arrays])
    return _split(_keep(flat, max(flat.size - check_integer("nonzeros", nonzeros, 0), 0)), arrays)


def n_of_m(scores: Scores, n: int, m: int, axes: Axes = ((1,), (0,))) -> Mask:
    """Return a mask that keeps the `n` highest of every `m` scores along the inputs; see `NofM`.

    >>> n_of_m(np.array([[1.0], [4.0], [3.0], [2.0], [5.0]]), n=2, m=4)[:, 0].tolist()
    [False, True, True, False, True]

    Args:
        scores: Array of a kernel's shape.
        n: Weights that stay in each group.
        m: Weights in a group.
        axes: Output and input axes. Defaults to those of a Dense kernel `(in, out)`.

    Returns:
        Boolean array of the same shape.
    """
    structure = NofM(n, m)
    return compute([scores], structure.sparsity, structure, axes=[axes])[0]


def blocks(
    scores: Scores, sparsity: float, rows: int, columns: int, axes: Axes = ((1,), (0,))
) -> Mask:
    """Return a mask that removes the lowest `round(sparsity * blocks)` blocks; see `Block`.

    >>> blocks(np.array([[1.0, 5.0], [2.0, 0.0]]), 0.5, rows=1, columns=2).tolist()
    [[False, True], [False, True]]

    Args:
        scores: Array of a kernel's shape.
        sparsity: Share of the blocks that are removed, in [0, 1].
        rows: Outputs in a block.
        columns: Inputs in a block.
        axes: Output and input axes. Defaults to those of a Dense kernel `(in, out)`.

    Returns:
        Boolean array of the same shape.
    """
    return compute([scores], sparsity, Block(rows, columns), axes=[axes])[0]


def compute(
    scores: Sequence[Scores],
    sparsity: float,
    structure: Structure = None,
    scope: Literal["layer", "global"] = "layer",
    axes: Sequence[Axes] | None = None,
) -> list[Mask]:
    """Return the masks of several kernels for a sparsity, a pattern and a scope.

    >>> [mask] = compute([np.array([[1.0, 5.0], [2.0, 0.0]])], 0.5)
    >>> mask.tolist()
    [[False, True], [True, False]]

    Args:
        scores: An array for each kernel, of its shape.
        sparsity: Share of the weights that are removed, in [0, 1]; with a `Block`, share of the
            blocks. With `NofM` at most `structure.sparsity`; below it, the lowest scores among the
            weights that the full pattern would remove.
        structure: The pattern of the zeros, or `None` (the default) for any.
        scope: `"layer"` (the default) removes that share of each kernel; `"global"` removes it of
            all kernels together.
        axes: Output and input axes of each kernel. Needed with a structure only. Defaults to None.

    Returns:
        A boolean array for each kernel, of its shape.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has a wrong value, `sparsity` is more than N:M allows, or a kernel
            has no input axis.
    """
    scores = _all_checked(scores)
    sparsity = check_number("sparsity", sparsity, 0, 1)
    check_choice("scope", scope, ("layer", "global"))
    if structure is not None and not isinstance(structure, NofM | Block):
        refuse("structure", "a NofM, a Block or None", structure, TypeError)
    if structure is None:
        if scope == "layer":
            return [_keep_share(array, sparsity) for array in scores]
        total = sum(array.size for array in scores)
        return global_budget(scores, total - round(sparsity * total))
    if axes is None:
        raise ValueError("A structure needs the `axes` of every kernel.")
    _check_axes(axes, scores)
    views = [_Matrix(array, *pair) for array, pair in zip(scores, axes, strict=True)]
    if isinstance(structure, NofM):
        share = sparsity / structure.sparsity
        if share > 1.0 + 1e-9:
            raise ValueError(
                f"{structure.n}:{structure.m} removes at most {structure.sparsity:.4g} of the "
                f"weights. Received: sparsity={sparsity}"
            )
        units = [_removable(view.values, structure) for view in views]
    else:
        share = sparsity
        units = [_block_means(view.values, structure) for view in views]
    # Units that must stay have an infinite score and are not counted.
    counts = [int(np.count_nonzero(unit < math.inf)) for unit in units]
    if scope == "layer":
        kept = [
            _keep(unit.ravel(), round(share * count)).reshape(unit.shape)
            for unit, count in zip(units, counts, strict=True)
        ]
    else:
        flat = np.concatenate([unit.ravel() for unit in units])
        kept = _split(_keep(flat, round(share * sum(counts))), units)
    if isinstance(structure, Block):
        kept = [
            _expand(mask, structure, view.values.shape)
            for mask, view in zip(kept, views, strict=True)
        ]
    return [view.restore(mask) for mask, view in zip(kept, views, strict=True)]


def _checked(name: str, scores: object) -> Scores:
    """Return scores as an array that can be ranked: of finite numbers, with at least one."""
    wanted = "an array of finite numbers, at least one"
    array = np.asarray(scores if isinstance(scores, list) or hasattr(scores, "__array__") else None)
    if array.dtype.kind not in "biuf":
        refuse(name, wanted, scores, TypeError)
    if not array.size or not np.isfinite(array).all():
        refuse(name, wanted, scores)
    return array


def _all_checked(scores: object) -> list[Scores]:
    if not isinstance(scores, list | tuple) or not scores:
        refuse("scores", "a list of arrays, at least one", scores, TypeError)
    return [_checked("scores", array) for array in scores]


def _check_axes(axes: object, scores: Sequence[Scores]) -> None:
    """Raise if axes are not, for each kernel, two tuples of axes that it has."""
    wanted = f"a list of {len(scores)} pair(s) of output and input axes, such as ((1,), (0,))"
    if not isinstance(axes, list | tuple) or len(axes) != len(scores):
        refuse("axes", wanted, axes, TypeError)
    for pair, array in zip(axes, scores, strict=True):
        if not (
            isinstance(pair, list | tuple)
            and len(pair) == 2
            and all(isinstance(side, list | tuple) for side in pair)
        ):
            refuse("axes", wanted, axes, TypeError)
        every = [axis for side in pair for axis in side]
        if len(set(every)) < len(every) or not set(every) <= set(range(array.ndim)):
            refuse("axes", f"{wanted}: axes of scores of shape {array.shape}, each once", axes)


def _keep_share(scores: Scores, removed: float) -> Mask:
    return _keep(scores.ravel(), round(removed * scores.size)).reshape(scores.shape)


def _keep(flat: Scores, zeros: int) -> Mask:
    """Keep all but the `zeros` lowest of a flat array; among equals, remove the first."""
    if zeros <= 0:
        return np.ones(flat.size, bool)
    if zeros >= flat.size:
        return np.zeros(flat.size, bool)
    # np.partition takes ten times as long where many scores are equal, as those of pruned weights
    # are, so the lowest score is handled apart.
    limit = flat.min()
    others = flat[flat > limit]
    left = zeros - (flat.size - others.size)
    if left > 0:
        limit = _nth_lowest(others, left)
    mask: Mask = flat > limit
    surplus = flat.size - int(np.count_nonzero(mask)) - zeros
    if surplus:
        equal = np.flatnonzero(flat == limit)
        mask[equal[equal.size - surplus :]] = True
    return mask


def _nth_lowest(values: Scores, n: int) -> Any:
    """Return the n-th lowest value, counted from 1: np.partition within bounds from a sample.

    On large arrays this takes a third of the time. Bounds that prove wrong are not used.
    """
    sample = np.sort(values[::_SAMPLE_EVERY])
    if sample.size > _SAMPLE_EVERY:
        middle = n / values.size * sample.size
        margin = 2.0 * math.sqrt(sample.size)  # four standard deviations of a rank, at most
        low = sample[max(int(middle - margin), 0)]
        high = sample[min(int(middle + margin), sample.size - 1)]
        below = int(np.count_nonzero(values < low))
        between = values[(values >= low) & (values <= high)]
        if below < n <= below + between.size:
            values, n = between, n - below
    return np.partition(values, n - 1)[n - 1]


def _split(flat: Mask, like: Sequence[Scores]) -> list[Mask]:
    ends = np.cumsum([array.size for array in like])[:-1]
    parts = np.split(flat, ends)
    return [part.reshape(array.shape) for part, array in zip(parts, like, strict=True)]


class _Matrix:
    """View a kernel as `(outputs, positions, inputs)`, TFLite's layout, and convert masks back."""

    def __init__(self, array: Scores, outputs: tuple[int, ...], inputs: tuple[int, ...]) -> None:
        if not inputs:
            raise ValueError(
                f"A kernel of shape {array.shape} has no input axis, being depthwise, so its "
                "zeros cannot be given a structure along it."
            )
        spatial = tuple(sorted(set(range(array.ndim)) - {*outputs, *inputs}))
        self._order = (*outputs, *spatial, *inputs)
        moved = array.transpose(self._order)
        self._shape = moved.shape
        sizes = [math.prod(array.shape[axis] for axis in axes) for axes in (outputs, spatial)]
        self.values = moved.reshape(*sizes, -1)

    def restore(self, mask: Mask) -> Mask:
        return mask.reshape(self._shape).transpose(np.argsort(self._order))


def _removable(values: Scores, structure: NofM) -> Scores:
    """Return the scores, infinite where they are among the `n` highest of their group."""
    n, m = structure.n, structure.m
    outputs, positions, inputs = values.shape
    groups = -(-inputs // m)
    padded = np.full((outputs, positions, groups * m), -math.inf, np.float64)
    padded[..., :inputs] = values
    padded = padded.reshape(outputs, positions, groups, m)
    # Reversed and stable, so that among equals the last stay.
    order = m - 1 - np.argsort(-padded[..., ::-1], axis=-1, kind="stable")
    np.put_along_axis(padded, order[..., :n], math.inf, axis=-1)
    return padded.reshape(outputs, positions, -1)[..., :inputs]


def _block_means(values: Scores, structure: Block) -> Scores:
    outputs, positions, inputs = values.shape
    tall, wide = -(-outputs // structure.rows), -(-inputs // structure.columns)
    shape = (tall, structure.rows, positions, wide, structure.columns)
    sums = np.zeros((shape[0] * shape[1], positions, shape[3] * shape[4]), np.float64)
    sums[:outputs, :, :inputs] = values
    rows = np.full(tall, structure.rows)
    rows[-1] = outputs - (tall - 1) * structure.rows
    columns = np.full(wide, structure.columns)
    columns[-1] = inputs - (wide - 1) * structure.columns
    means: Scores = sums.reshape(shape).sum(axis=(1, 4)) / (
        rows[:, None, None] * columns[None, None, :]
    )
    return means


def _expand(mask: Mask, structure: Block, shape: tuple[int, ...]) -> Mask:
    tall = mask.repeat(structure.rows, axis=0)[: shape[0]]
    return tall.repeat(structure.columns, axis=2)[..., : shape[2]]
