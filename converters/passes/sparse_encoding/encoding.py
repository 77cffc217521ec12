"""TFLite's sparse encodings of an array: which exist, what each costs, which is the smallest.

The axes are traversed in `traversal_order`. Some are dense, one is compressed (the indices of its
nonzero entries are listed, as in compressed sparse rows), and the axes after it are stored whole. A
block splits an axis into pieces; the elements inside a piece come last in the order.

https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs
(SparsityParameters) follows Chou, Kjolstad and Amarasinghe 2018, Format Abstraction for Sparse
Tensor Algebra Compilers: https://arxiv.org/abs/1804.10112
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

BLOCKS = (2, 4, 8, 16)


@dataclass(frozen=True)
class Level:
    """One axis, or the inside of a block, in the order of traversal.

    Attributes:
        size: Length of a dense axis; 0 for a compressed one.
        segments: Where in `indices` each run begins, and where the last one ends; None if dense.
        indices: Indices along a compressed axis that are stored; None if dense.
    """

    size: int
    segments: Array | None = None
    indices: Array | None = None


@dataclass(frozen=True)
class Encoding:
    """An array in the sparse encoding.

    Attributes:
        traversal_order: The axes, outermost first. The inside of a block has the number `rank`.
        block_map: The axis that the block splits; empty without a block.
        levels: One level for each entry of `traversal_order`.
        values: The stored elements, flat.
    """

    traversal_order: tuple[int, ...]
    block_map: tuple[int, ...]
    levels: tuple[Level, ...]
    values: Array

    @property
    def bytes(self) -> int:
        """Size of the values, segments and indices, without the tables around them."""
        parts = [part for level in self.levels for part in (level.segments, level.indices)]
        return sum(int(part.nbytes) for part in (self.values, *parts) if part is not None)

    def __str__(self) -> str:
        rank = len(self.traversal_order) - len(self.block_map)
        place, indices = next(
            (i, level.indices) for i, level in enumerate(self.levels) if level.indices is not None
        )
        text = f"axis {self.traversal_order[place]}, {indices.dtype} indices"
        if self.block_map:
            return f"{text}, blocks of {self.levels[-1].size} along axis {self.block_map[0]}"
        whole = self.traversal_order[place + 1 : rank]
        return f"{text}, whole along {', '.join(map(str, whole))}" if whole else text


@dataclass(frozen=True)
class Plan:
    """Which encoding to use for an array.

    Attributes:
        axis: The compressed axis.
        whole: Axes that are stored whole wherever one of their elements is not zero.
        block: (axis, size) of the blocks; None for no blocks.
    """

    axis: int
    whole: tuple[int, ...] = ()
    block: tuple[int, int] | None = None


def candidates(array: Array) -> Iterator[tuple[Plan, int]]:
    """Yield the encodings worth trying, each with its exact size.

    Every axis can be the compressed one. The other axes are dense, except for one of: a set of
    whole axes (for channels that are all zero), or a block of 2, 4, 8 or 16 elements along an axis
    whose length the block divides.

    >>> kernel = np.zeros((8, 64), np.int8)
    >>> kernel[:, 5] = 1
    >>> for plan, size in candidates(kernel):
    ...     if size < 25:
    ...         print(plan, size)
    Plan(axis=1, whole=(0,), block=None) 11
    Plan(axis=1, whole=(), block=(0, 2)) 17
    Plan(axis=1, whole=(), block=(0, 4)) 13
    Plan(axis=1, whole=(), block=(0, 8)) 11

    Args:
        array: Any shape except a scalar; -0.0 counts as zero.

    Yields:
        A plan, and the `Encoding.bytes` that it leads to.
    """
    axes = range(array.ndim)
    filled = array != 0
    wide = [axis for axis in axes if array.shape[axis] > 1]
    sets = [s for n in range(max(1, len(wide))) for s in itertools.combinations(wide, n)]
    blocks = [(a, b) for a in axes for b in BLOCKS if array.shape[a] % b == 0]
    for whole, block in [*((s, None) for s in sets), *(((), b) for b in blocks)]:
        shape, inner = _split(array.shape, whole, block)
        stored = int(np.count_nonzero(filled.reshape(shape).any(axis=inner)))
        places = [n for axis, n in enumerate(shape) if axis not in inner]
        sizes = [n // block[1] if block and a == block[0] else n for a, n in enumerate(array.shape)]
        for axis in axes:
            if axis in whole:
                continue
            outer = math.prod(places) // sizes[axis]
            yield (
                Plan(axis, whole, block),
                _cost(
                    max(stored, 1),
                    sizes[axis],
                    outer,
                    array.size // math.prod(places),
                    array.itemsize,
                ),
            )


def _split(
    shape: tuple[int, ...], whole: tuple[int, ...], block: tuple[int, int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shape with the axis of the block split, and the axes stored together."""
    if block is None:
        return shape, whole
    axis, size = block
    cut = (*shape[:axis], shape[axis] // size, size, *shape[axis + 1 :])
    return cut, (axis + 1,)


def _cost(stored: int, size: int, outer: int, inner: int, itemsize: int) -> int:
    index = np.dtype(_narrow(size - 1)).itemsize
    segment = np.dtype(_narrow(stored)).itemsize
    return stored * (inner * itemsize + index) + (outer + 1) * segment


def _narrow(largest: int) -> type:
    """Return the narrowest type of the format for numbers up to `largest`."""
    if largest < 2**8:
        return np.uint8
    return np.uint16 if largest < 2**16 else np.int32


def encode(array: Array, plan: Plan | None = None) -> Encoding:
    """Encode an array so that only nonzero elements are stored.

    Of an array of zeros one zero is stored: for the runtime, a tensor without data is no constant.

    >>> found = encode(np.array([[0, 0, 7, 0], [0, 0, 0, 0], [5, 0, 0, 6]], np.int8))
    >>> print(found, found.values, [level.indices for level in found.levels])
    axis 1, uint8 indices [7 5 6] [None, array([2, 0, 3], dtype=uint8)]
    >>> found.bytes
    10

    Args:
        array: Any shape except a scalar; not empty.
        plan: Which encoding to use. Defaults to None, the smallest.

    Returns:
        The encoding.

    Raises:
        ValueError: The array is a scalar or empty.
    """
    if not array.ndim or not array.size:
        raise ValueError(f"A scalar or empty array has no sparse encoding. Shape: {array.shape}")
    if plan is None:
        plan, _ = min(candidates(array), key=lambda candidate: candidate[1])
    rank = array.ndim
    outer = [a for a in range(rank) if a != plan.axis and a not in plan.whole]
    order = (*outer, plan.axis, *plan.whole)
    shape, _ = _split(array.shape, plan.whole, plan.block)
    if plan.block is None:
        cut = array.transpose(order)
    else:
        # The inside of the block is the axis after the split one; it moves to the end.
        at = plan.block[0]
        places = [a + (a > at) for a in order]
        cut = array.reshape(shape).transpose((*places, at + 1))
    sizes = cut.shape
    rows = cut.reshape(math.prod(sizes[: len(outer)]), sizes[len(outer)], -1)
    filled = (rows != 0).any(axis=2)
    if not filled.any():
        filled[0, 0] = True
    indices = np.nonzero(filled)[1]
    segments = np.concatenate([[0], np.cumsum(filled.sum(axis=1))])
    compressed = Level(
        0,
        segments.astype(_narrow(len(indices))),
        indices.astype(_narrow(sizes[len(outer)] - 1)),
    )
    levels = [Level(size) for size in sizes]
    levels[len(outer)] = compressed
    return Encoding(
        order if plan.block is None else (*order, rank),
        () if plan.block is None else (plan.block[0],),
        tuple(levels),
        np.ascontiguousarray(rows[filled]).reshape(-1),
    )
