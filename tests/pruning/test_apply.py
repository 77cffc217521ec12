import keras
import numpy as np
import pytest
from keras import layers

from tfcompress.model.kernels import kernels
from tfcompress.pruning.apply import apply_mask, make_masks, score
from tfcompress.pruning.importance import magnitude


@pytest.fixture
def kernel():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, name="dense")])
    model.layers[0].kernel.assign([[1.0, -2.0, 0.0], [-0.5, 3.0, 4.0]])
    return kernels(model)[0]


def test_apply_mask_counts_new_zeros_and_leaves_no_negative_zero(kernel):
    mask = np.array([[True, False, False], [False, True, True]])
    assert apply_mask(kernel, mask, kernel.numpy()) == 2
    after = kernel.numpy()
    np.testing.assert_array_equal(after, [[1.0, 0.0, 0.0], [0.0, 3.0, 4.0]])
    assert not np.signbit(after[after == 0]).any()
    assert apply_mask(kernel, mask, after) == 0


def test_make_masks_puts_zeros_first_whatever_the_importance_says(kernel):
    def largest(weights):
        return -np.abs(weights)  # so zero scores highest

    arguments = ([kernel], [kernel.numpy()], 1 / 6, None, "layer", largest)
    [plain], [first] = make_masks(*arguments), make_masks(*arguments, zeros_first=True)
    np.testing.assert_array_equal(plain, [[True] * 3, [True, True, False]])
    np.testing.assert_array_equal(first, [[True, True, False], [True] * 3])


def test_score_tells_damaged_weights_from_a_damaged_importance(kernel):
    weights = kernel.numpy()
    np.testing.assert_array_equal(score(kernel, weights, magnitude), np.abs(weights))
    with pytest.raises(ValueError, match=r"`importance` gives NaN.*'dense/kernel'.*1 such score"):
        score(kernel, weights, lambda w: np.where(w == 4.0, np.nan, w))
    weights[0, 0] = np.inf
    with pytest.raises(ValueError, match=r"Weight 'dense/kernel' holds 1 NaN or infinite"):
        score(kernel, weights, magnitude)
