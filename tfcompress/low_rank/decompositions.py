"""Low-rank approximation of kernels: the numerics, in float64."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["svd", "svd_energy", "tucker2", "tucker2_energy"]

Array: TypeAlias = npt.NDArray[Any]


def svd(matrix: Array, rank: int) -> tuple[Array, Array]:
    """Return the best approximation of a matrix by a product of two thin ones.

    The smallest singular values are lost (Eckart & Young 1936). Each factor gets the square root of
    the others, so that both have values of one size.

    >>> left, right = svd(np.outer([1.0, 2.0, 3.0], [4.0, 5.0]), rank=1)
    >>> left.shape, right.shape
    ((3, 1), (1, 2))
    >>> np.round(left @ right, 6)
    array([[ 4.,  5.],
           [ 8., 10.],
           [12., 15.]])

    Args:
        matrix: Array of shape `(rows, columns)`.
        rank: From 1 to the smaller of `rows` and `columns`.

    Returns:
        Arrays of shapes `(rows, rank)` and `(rank, columns)`.
    """
    if matrix.shape[0] > matrix.shape[1]:
        right, left = svd(matrix.T, rank)
        return left.T, right.T
    basis = _basis(matrix, 0)[1][:, :rank]
    rest = basis.T @ matrix
    singular = np.linalg.norm(rest, axis=1)
    scale = np.sqrt(np.where(singular > 0, singular, 1.0))
    return basis * scale, rest / scale[:, None]


def svd_energy(matrix: Array) -> Array:
    """Return the share of the energy that `svd` keeps at each rank from 1.

    The energy is the sum of the squared values.

    >>> svd_energy(np.diag([3.0, 0.0, 4.0])).round(6)
    array([0.64, 1.  , 1.  ])

    Args:
        matrix: Array of shape `(rows, columns)`.

    Returns:
        Array of shares, one for each rank up to the smaller of `rows` and `columns`, ascending
        to 1.
    """
    smaller = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    squares = np.linalg.eigvalsh(smaller @ smaller.T)[::-1]
    return _share(np.cumsum(np.maximum(squares, 0.0)))


def tucker2(
    kernel: Array, ranks: tuple[int, int], sweeps: int = 0
) -> tuple[Array | None, Array, Array | None]:
    """Return a kernel as a thinner one between two matrices, on its inputs and on its outputs.

    The matrices are orthonormal, the leading singular vectors of the kernel unfolded along either
    axis (HOSVD). Each sweep of HOOI then fits one to the other, which can only lower the error. An
    axis that keeps its full rank needs no matrix.

    >>> kernel = np.arange(24.0).reshape(2, 3, 4)
    >>> first, core, last = tucker2(kernel, (2, 2))
    >>> first.shape, core.shape, last.shape
    ((3, 2), (2, 2, 2), (2, 4))
    >>> bool(np.allclose(np.einsum("ir,krs,so->kio", first, core, last), kernel))
    True

    Args:
        kernel: Array of shape `(positions, inputs, outputs)`.
        ranks: Rank of the inputs, and rank of the outputs.
        sweeps: Number of sweeps of HOOI. Defaults to 0.

    Returns:
        Arrays of shapes `(inputs, r)`, `(positions, r, s)` and `(s, outputs)`; None for a matrix
        that is not needed.

    Reference:
        Kim et al. 2016, https://arxiv.org/abs/1511.06530; HOSVD and HOOI: De Lathauwer et al. 2000
    """
    inputs, outputs = (
        _basis(kernel, axis)[1][:, :rank] if rank < kernel.shape[axis] else None
        for axis, rank in zip((1, 2), ranks, strict=True)
    )
    if inputs is not None and outputs is not None:  # Else it is a truncated SVD: the best already.
        for _ in range(sweeps):
            inputs = _basis(kernel @ outputs, 1)[1][:, : ranks[0]]
            outputs = _basis(inputs.T @ kernel, 2)[1][:, : ranks[1]]
    core = kernel if inputs is None else inputs.T @ kernel
    core = core if outputs is None else core @ outputs
    return inputs, core, None if outputs is None else outputs.T


def tucker2_energy(kernel: Array) -> Array:
    """Return the share of the energy that `tucker2` keeps without HOOI, at each pair of ranks.

    >>> kernel = np.zeros((1, 2, 2))
    >>> kernel[0, 0, 0], kernel[0, 1, 1] = 2.0, 1.0
    >>> tucker2_energy(kernel).round(6)
    array([[0.8, 0.8],
           [0.8, 1. ]])

    Args:
        kernel: Array of shape `(positions, inputs, outputs)`.

    Returns:
        Array of shape `(inputs, outputs)`, for ranks from 1, ascending along both axes.
    """
    core = _basis(kernel, 1)[1].T @ kernel @ _basis(kernel, 2)[1]
    return _share(np.square(core).sum(axis=0).cumsum(axis=0).cumsum(axis=1))


def _basis(tensor: Array, axis: int) -> tuple[Array, Array]:
    """Return squared singular values along an axis, largest first, and the vectors in columns."""
    unfolded = np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)
    # The small square matrix is cheaper, and exact enough: squares of float32 fit in float64.
    squares, vectors = np.linalg.eigh(unfolded @ unfolded.T)
    return squares[::-1], vectors[:, ::-1]


def _share(energy: Array) -> Array:
    total = energy.flat[-1]
    return np.minimum(energy / total, 1.0) if total > 0 else np.ones_like(energy)
