"""The numerics of low rank, against NumPy's own SVD and direct sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfcompress.low_rank import decompositions

# Squares of singular values come from a Gram matrix in float64: 1e-16 relative to the largest.
EXACT = 1e-12


def matrices(rows, columns, seed):
    """Random, with singular values that fall by half."""
    rng = np.random.default_rng(seed)
    size = min(rows, columns)
    left = np.linalg.qr(rng.normal(size=(rows, size)))[0]
    right = np.linalg.qr(rng.normal(size=(columns, size)))[0]
    return left * 0.5 ** np.arange(size) @ right.T


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99), st.data())
@settings(max_examples=60, deadline=None)
def test_the_error_is_the_tail_of_singular_values(rows, columns, seed, data):
    matrix = matrices(rows, columns, seed)
    rank = data.draw(st.integers(1, min(rows, columns)))
    left, right = decompositions.svd(matrix, rank)
    assert (left.shape, right.shape) == ((rows, rank), (rank, columns))
    singular = np.linalg.svd(matrix, compute_uv=False)
    error = np.square(matrix - left @ right).sum()
    np.testing.assert_allclose(error, np.square(singular[rank:]).sum(), atol=EXACT)
    kept = decompositions.svd_energy(matrix)
    expected = np.square(singular).cumsum() / np.square(singular).sum()
    np.testing.assert_allclose(kept, expected, atol=EXACT)
    assert kept[-1] == 1.0


def test_factors_of_a_matrix_have_the_same_size():
    matrix = np.random.default_rng(0).normal(size=(9, 20)) * 100
    left, right = decompositions.svd(matrix, 4)
    singular = np.linalg.svd(matrix, compute_uv=False)[:4]
    np.testing.assert_allclose(np.square(left).sum(axis=0), singular, rtol=1e-9)
    np.testing.assert_allclose(np.square(right).sum(axis=1), singular, rtol=1e-9)


def reconstructed(kernel, factors):
    first, core, last = factors
    first = np.eye(kernel.shape[1]) if first is None else first
    last = np.eye(kernel.shape[2]) if last is None else last
    return np.tensordot(np.tensordot(core, first, axes=(1, 1)), last, axes=(1, 0))


@given(st.integers(1, 5), st.integers(1, 7), st.integers(1, 7), st.integers(0, 99), st.data())
@settings(max_examples=60, deadline=None)
def test_tucker2_keeps_the_energy_that_the_table_says(size, inputs, outputs, seed, data):
    kernel = np.random.default_rng(seed).normal(size=(size, inputs, outputs))
    ranks = data.draw(st.integers(1, inputs)), data.draw(st.integers(1, outputs))
    factors = decompositions.tucker2(kernel, ranks)
    assert factors[1].shape == (size, *ranks)
    error = np.square(kernel - reconstructed(kernel, factors)).sum() / np.square(kernel).sum()
    energy = decompositions.tucker2_energy(kernel)
    np.testing.assert_allclose(error, 1 - energy[ranks[0] - 1, ranks[1] - 1], atol=EXACT)
    # The bound of HOSVD: the sum of both tails.
    tails = 0.0
    for axis, rank in zip((1, 2), ranks, strict=True):
        unfolded = np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)
        tails += np.square(np.linalg.svd(unfolded, compute_uv=False)[rank:]).sum()
    assert error * np.square(kernel).sum() <= tails + EXACT
    # HOOI can only lower it.
    refined = decompositions.tucker2(kernel, ranks, sweeps=3)
    better = np.square(kernel - reconstructed(kernel, refined)).sum() / np.square(kernel).sum()
    assert better <= error + EXACT


def test_hooi_gains_something_where_the_two_sides_depend_on_each_other():
    kernel = np.random.default_rng(0).normal(size=(9, 16, 16))
    errors = [
        np.linalg.norm(
            kernel - reconstructed(kernel, decompositions.tucker2(kernel, (4, 4), sweeps))
        )
        for sweeps in (0, 1, 5)
    ]
    assert errors[2] < errors[1] < errors[0]


def test_full_rank_is_the_kernel():
    kernel = np.random.default_rng(0).normal(size=(9, 5, 6))
    first, core, last = decompositions.tucker2(kernel, (5, 6))
    assert first is None
    assert last is None
    np.testing.assert_array_equal(core, kernel)
    left, right = decompositions.svd(kernel[0], 5)
    np.testing.assert_allclose(left @ right, kernel[0], atol=EXACT)


@pytest.mark.parametrize("rank", [1, 3])
def test_zeros_stay_zeros(rank):
    left, right = decompositions.svd(np.zeros((4, 3)), rank)
    np.testing.assert_array_equal(left @ right, np.zeros((4, 3)))
    np.testing.assert_array_equal(decompositions.svd_energy(np.zeros((4, 3))), np.ones(3))
    np.testing.assert_array_equal(
        decompositions.tucker2_energy(np.zeros((2, 4, 3))), np.ones((4, 3))
    )
