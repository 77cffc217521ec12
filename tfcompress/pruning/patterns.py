"""Patterns of zeros: which weights of a kernel become zero together."""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

from tfcompress.edge.arguments import check_integer, refuse

__all__ = ["FAST_DENSE", "SMALL_FILE", "Block", "NofM", "Structure"]


@dataclasses.dataclass(frozen=True)
class NofM:
    """Keep at most `n` non-zeros among every `m` consecutive weights along the input axis.

    Groups are counted from the first input, for each output and each position of the filter. Where
    `m` does not divide the inputs, the last group is shorter and may still hold `n` non-zeros. The
    highest possible sparsity is `1 - n / m`, and a schedule for this pattern ends there.

    >>> NofM(2, 4).sparsity
    0.5

    Args:
        n: Weights that may stay in a group, at least 1.
        m: Weights in a group, more than `n`.

    Raises:
        TypeError: A number is no integer.
        ValueError: Not 1 <= n < m.

    Reference:
        Mishra et al., "Accelerating Sparse Deep Neural Networks",
        https://arxiv.org/abs/2104.08378.
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        check_integer("NofM.n", self.n, 1)
        check_integer("NofM.m", self.m, 1)
        if not self.n < self.m:
            refuse("NofM.m", f"more than n={self.n}", self.m)

    @property
    def sparsity(self) -> float:
        """Return the share of zeros of the full pattern."""
        return 1.0 - self.n / self.m


@dataclasses.dataclass(frozen=True)
class Block:
    """Remove weights in blocks of `rows` outputs by `columns` inputs.

    Blocks are counted from the first output and input, for each position of a convolution's filter,
    in TFLite's layout `[out, height, width, in]`. Where the block size does not divide the kernel,
    the blocks at the edge are smaller. The score of a block is the mean over its weights. The
    sparsity is the share of blocks that are zero.

    >>> Block(4, 1)
    Block(rows=4, columns=1)

    Args:
        rows: Outputs in a block, at least 1.
        columns: Inputs in a block, at least 1. A block has more than one weight.

    Raises:
        TypeError: A size is no integer.
        ValueError: A size is less than 1, or both are 1.

    Reference:
        Narang et al., "Block-Sparse Recurrent Neural Networks", https://arxiv.org/abs/1711.02782.
    """

    rows: int
    columns: int

    def __post_init__(self) -> None:
        check_integer("Block.rows", self.rows, 1)
        check_integer("Block.columns", self.columns, 1)
        if self.rows == self.columns == 1:
            raise ValueError(
                "A Block has more than one weight. Received: rows=1, columns=1. Use structure=None "
                "for single weights."
            )


SMALL_FILE = Block(4, 1)
"""Zeros for a small file: 4 outputs together, in layers whose outputs are a multiple of 4.

TFLite's sparse encoding then stores one index for each block instead of one for each weight. A
kernel of 256 x 256 becomes smaller, in float32 / int8, by

| zeros | single weights | blocks of 4 |
|---|---|---|
| 50% | 1.6 / 1.0 times | 1.9 / 1.6 times |
| 80% | 4.0 / 2.5 times | 4.7 / 4.0 times |
| 90% | 7.9 / 4.8 times | 9.4 / 7.9 times |

Larger blocks save little more. Blocks along the inputs save as much.
"""

FAST_DENSE = Block(1, 4)
"""Zeros for fast Dense layers: 4 inputs together, in layers whose inputs are a multiple of 4.

It is the pattern of TFLite's sparse kernel for float32 FULLY_CONNECTED, which reads a file written
with `converters.Sparse(skip_zeros=True)`. It pays where layers are large, the batch is 1 and about
90% are zero. Files become as small as with `SMALL_FILE`.
"""

Structure: TypeAlias = NofM | Block | None
"""The pattern of the zeros; `None` allows any pattern."""
