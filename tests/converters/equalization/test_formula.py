"""The factors of channels, against loops over single numbers."""

import numpy as np
import pytest

from tfcompress.converters.equalization.formula import (
    largest_by_unit,
    relative_weights,
    smooth_factors,
    unevenness,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_factors_are_those_of_smoothquant_up_to_one_scale_for_all(alpha):
    activations, weights = RNG.uniform(0.1, 10, 7), RNG.uniform(0.1, 1, 7)
    found = smooth_factors(activations, weights, alpha)
    # SmoothQuant divides by s = max|x|^alpha / max|w|^(1 - alpha).
    wanted = [w ** (1 - alpha) / a**alpha for a, w in zip(activations, weights, strict=True)]
    np.testing.assert_allclose(found / found[0], np.array(wanted) / wanted[0], rtol=1e-12)
    assert (found * activations).max() == pytest.approx(activations.max())


def test_with_alpha_1_all_channels_are_as_large():
    activations = np.array([1e-3, 5.0, 0.2])
    factors = smooth_factors(activations, np.ones(3), 1.0)
    np.testing.assert_allclose(activations * factors, 5.0)


def test_what_is_silent_or_faint_is_not_scaled_up_without_bound():
    factors = smooth_factors(np.array([0.0, 1e-9, 1.0]), np.ones(3), 1.0)
    np.testing.assert_allclose(factors, [1.0, 1e4, 1.0])
    np.testing.assert_allclose(smooth_factors(np.zeros(2), np.zeros(2), 0.5), 1.0)


def test_relative_weights_are_shares_of_each_output():
    kernel = RNG.normal(size=(3, 4, 5))
    kernel[..., 2] = 0
    found = relative_weights(kernel, (2,))
    for i, j, k in np.ndindex(3, 4, 5):
        largest = max(abs(kernel[a, b, k]) for a in range(3) for b in range(4))
        assert found[i, j, k] == (abs(kernel[i, j, k]) / largest if largest else 0)


def test_largest_by_unit_takes_units_in_any_shape():
    ids, values = np.array([[0], [2]]), np.array([[1.0, 4.0], [3.0, 2.0]])
    np.testing.assert_array_equal(largest_by_unit(ids, values, 4), [4, 0, 3, 0])


def test_unevenness_leaves_out_channels_that_are_always_zero():
    assert unevenness(np.array([0.0, 0.0, 0.0, 1.0, 2.0, 9.0])) == 4.5
    assert unevenness(np.zeros(3)) == 1
