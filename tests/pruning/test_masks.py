import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfcompress import masks
from tfcompress.pruning.importance import magnitude

# Output and input axes as the layers of Keras have them.
DENSE = ((1,), (0,))
CONV2D = ((3,), (2,))
CONV2D_TRANSPOSE = ((2,), (3,))


def random_scores(shape, seed=0):
    return np.abs(np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def zeros(mask):
    return mask.size - np.count_nonzero(mask)


def reference_per_layer(scores, sparsity):
    """Sort everything, stably; the first go."""
    order = np.argsort(scores.ravel(), kind="stable")
    mask = np.ones(scores.size, bool)
    mask[order[: round(sparsity * scores.size)]] = False
    return mask.reshape(scores.shape)


@given(
    levels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    sparsity=st.floats(0.0, 1.0),
)
@settings(max_examples=200, deadline=None)
def test_per_layer_is_exact_and_stable_with_ties(levels, sparsity):
    scores = np.array(levels, np.float32)
    np.testing.assert_array_equal(
        masks.per_layer(scores, sparsity), reference_per_layer(scores, sparsity)
    )


@pytest.mark.parametrize("shape", [(7, 5), (3, 3, 4, 8), (1,)])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_per_layer_counts(shape, sparsity):
    scores = random_scores(shape)
    mask = masks.per_layer(scores, sparsity)
    assert zeros(mask) == round(sparsity * scores.size)
    np.testing.assert_array_equal(mask, reference_per_layer(scores, sparsity))


@pytest.mark.parametrize("kind", ["normal", "sorted", "few levels", "half zero", "periodic"])
def test_large_arrays(kind):
    """Where the search is narrowed by a sample, also by one that misleads."""
    scores = random_scores((40_000,))
    if kind == "sorted":
        scores = np.sort(scores)
    elif kind == "few levels":
        scores = np.round(scores * 3)
    elif kind == "half zero":
        scores[::2] = 0.0
    elif kind == "periodic":
        scores[::29] += 100.0
    for sparsity in (0.0001, 0.1, 0.5, 0.8, 0.97, 0.9999):
        np.testing.assert_array_equal(
            masks.per_layer(scores, sparsity), reference_per_layer(scores, sparsity)
        )


def test_scores_are_not_changed():
    scores = random_scores((8, 8))
    before = scores.copy()
    masks.per_layer(scores, 0.5)
    masks.n_of_m(scores, 2, 4)
    masks.blocks(scores, 0.5, 2, 2)
    masks.global_budget([scores], 10)
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize("nonzeros", [0, 1, 10, 35 + 24, 1000])
def test_global_budget_keeps_the_highest_of_all(nonzeros):
    scores = [random_scores((7, 5), 1), 3 * random_scores((2, 3, 4), 2)]
    kept = masks.global_budget(scores, nonzeros)
    assert [mask.shape for mask in kept] == [(7, 5), (2, 3, 4)]
    assert sum(np.count_nonzero(mask) for mask in kept) == min(nonzeros, 59)
    inside = np.concatenate([s[m] for s, m in zip(scores, kept, strict=True)])
    outside = np.concatenate([s[~m] for s, m in zip(scores, kept, strict=True)])
    if inside.size and outside.size:
        assert inside.min() >= outside.max()


def test_global_scope_is_the_budget():
    scores = [random_scores((7, 5), 1), 3 * random_scores((2, 3, 4), 2)]
    by_share = masks.compute(scores, 0.7, scope="global")
    by_count = masks.global_budget(scores, 59 - round(0.7 * 59))
    for left, right in zip(by_share, by_count, strict=True):
        np.testing.assert_array_equal(left, right)


def test_threshold_keeps_what_is_above():
    weights = np.array([-0.3, -0.2, 0.0, 0.2, 0.21], np.float32)
    mask = masks.threshold(magnitude(weights), np.float32(0.2))
    np.testing.assert_array_equal(mask, [True, False, False, False, True])


def reference_n_of_m(scores, n, m):
    """For a matrix (outputs, inputs), group by group."""
    mask = np.zeros(scores.shape, bool)
    for row in range(scores.shape[0]):
        for start in range(0, scores.shape[1], m):
            group = scores[row, start : start + m]
            # Highest first; among equals the last first.
            order = sorted(range(group.size), key=lambda i: (group[i], i), reverse=True)
            mask[row, start + np.array(order[:n])] = True
    return mask


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 8), (1, 2), (4, 5)])
@pytest.mark.parametrize("inputs", [8, 16, 7, 3, 1])
def test_n_of_m_against_reference(n, m, inputs):
    scores = random_scores((inputs, 6))
    scores[scores < 0.3] = 0.0  # ties
    expected = reference_n_of_m(scores.T, n, m).T
    np.testing.assert_array_equal(masks.n_of_m(scores, n, m), expected)


@pytest.mark.parametrize("axes", [CONV2D, CONV2D_TRANSPOSE])
def test_n_of_m_runs_along_the_inputs_of_a_convolution(axes):
    scores = random_scores((3, 2, 8, 8))
    mask = masks.n_of_m(scores, 2, 4, axes)
    in_last = mask if axes[1] == (3,) else mask.swapaxes(2, 3)
    groups = in_last.reshape(3, 2, 8, 2, 4)
    assert (groups.sum(-1) == 2).all()


def test_n_of_m_over_two_input_axes():
    """The output projection of attention has heads and width as its inputs."""
    scores = random_scores((2, 6, 5))
    mask = masks.n_of_m(scores, 2, 4, axes=((2,), (0, 1)))
    expected = reference_n_of_m(scores.reshape(12, 5).T, 2, 4).T.reshape(2, 6, 5)
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.25, 0.4])
def test_n_of_m_on_the_way_removes_only_what_the_pattern_would(sparsity):
    scores = random_scores((16, 10))
    full = masks.n_of_m(scores, 2, 4)
    part = masks.compute([scores], sparsity, masks.NofM(2, 4), axes=[DENSE])[0]
    assert zeros(part) == round(sparsity * scores.size)
    assert (part | ~full).all()
    removable = np.sort(scores[~full])
    np.testing.assert_array_equal(np.sort(scores[~part]), removable[: zeros(part)])


def reference_blocks(scores, sparsity, rows, columns):
    """For a matrix (outputs, inputs), block by block."""
    spots, means = [], []
    for top in range(0, scores.shape[0], rows):
        for left in range(0, scores.shape[1], columns):
            spot = np.s_[top : top + rows, left : left + columns]
            spots.append(spot)
            means.append(scores[spot].astype(np.float64).mean())
    mask = np.ones(scores.shape, bool)
    for index in np.argsort(means, kind="stable")[: round(sparsity * len(spots))]:
        mask[spots[index]] = False
    return mask


@pytest.mark.parametrize(("rows", "columns"), [(1, 4), (4, 1), (1, 16), (2, 2), (16, 1), (3, 5)])
@pytest.mark.parametrize("shape", [(16, 16), (10, 7), (1, 5)])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.8])
def test_blocks_against_reference(rows, columns, shape, sparsity):
    scores = random_scores(shape)
    expected = reference_blocks(scores.T, sparsity, rows, columns).T
    np.testing.assert_array_equal(masks.blocks(scores, sparsity, rows, columns), expected)


def test_blocks_of_a_convolution_stay_within_one_position():
    scores = random_scores((3, 3, 8, 4))
    mask = masks.blocks(scores, 0.75, 1, 4, CONV2D)
    stored = mask.transpose(3, 0, 1, 2)  # as TFLite has it: out, height, width, in
    blocks = stored.reshape(4, 3, 3, 2, 4)
    assert set(np.unique(blocks.sum(-1))) == {0, 4}
    assert zeros(mask) == round(0.75 * 72) * 4


@pytest.mark.parametrize("structure", [masks.NofM(2, 4), masks.Block(1, 4)])
def test_global_scope_with_a_structure(structure):
    scores = [random_scores((16, 8), 1), 5 * random_scores((3, 3, 8, 4), 2)]
    found = masks.compute(scores, 0.25, structure, "global", axes=[DENSE, CONV2D])
    assert sum(zeros(mask) for mask in found) == pytest.approx(0.25 * (128 + 288), abs=4)
    # The second kernel's weights are five times as large, so most zeros are in the first.
    assert zeros(found[0]) > zeros(found[1])


@pytest.mark.parametrize("structure", [masks.NofM(2, 4), masks.Block(1, 4)])
def test_equal_scores_give_exact_counts(structure):
    scores = np.ones((16, 8), np.float32)
    mask = masks.compute([scores], 0.5, structure, axes=[DENSE])[0]
    assert zeros(mask) == 64


def test_compute_rejects_patterns_that_do_not_fit():
    scores = random_scores((8, 8))
    with pytest.raises(ValueError, match=r"2:4 removes at most 0.5.*sparsity=0.6"):
        masks.compute([scores], 0.6, masks.NofM(2, 4), axes=[DENSE])
    with pytest.raises(ValueError, match="no input axis"):
        masks.blocks(random_scores((3, 3, 8, 1)), 0.5, 1, 4, axes=((2, 3), ()))
    with pytest.raises(ValueError, match="`axes`"):
        masks.compute([scores], 0.5, masks.Block(1, 4))
