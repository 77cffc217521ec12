"""Errors of layers from sums over batches, against the formula on whole arrays."""

import math

import numpy as np
import pytest

from tfcompress.converters.layer_error import Sums

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 5, 4)) * [1, 10, 100, 1]
NOISE = RNG.normal(size=X.shape) * 0.1


def sums_of(x, y):
    sums = Sums()
    for part in (slice(0, 2), slice(2, 6)):
        sums.add(x[part], y[part])
    return sums


def decibels(x, noise):
    return 10 * np.log10((x**2).sum() / (noise**2).sum())


def test_the_ratio_is_that_of_powers():
    sums = sums_of(X, X + NOISE)
    assert sums.snr_db() == pytest.approx(decibels(X, NOISE))
    shares = (NOISE**2).sum((0, 1)) / (X**2).sum((0, 1))
    assert sums.channels_db() == pytest.approx(-10 * np.log10(shares.mean()))
    assert sums.channels_db() < sums.snr_db() - 10
    assert not sums.rescaled
    np.testing.assert_allclose(sums.largest, np.abs(X).max((0, 1)))


def test_equal_outputs_have_no_noise_and_silence_has_no_signal():
    assert sums_of(X, X).snr_db() == math.inf
    assert sums_of(X * 0, X).snr_db() == -math.inf
    assert sums_of(X, np.where(X > 50, np.nan, X)).snr_db() == -math.inf


def test_channels_of_other_scales_are_scaled_back():
    factors = np.array([7.0, 0.3, 1e-2, 40.0])
    sums = sums_of(X, (X + NOISE) * factors)
    assert sums.rescaled
    # The best factor of each channel fits a little of the noise, too.
    assert sums.snr_db() == pytest.approx(decibels(X, NOISE), abs=0.5)


def test_slightly_other_scales_are_seen_where_little_else_differs():
    factors = np.array([1.1, 0.95, 1.0, 1.3])
    assert sums_of(X, (X + NOISE / 10) * factors).rescaled
    assert not sums_of(X, X * 1.0001 + NOISE).rescaled


def test_a_wrong_tensor_is_not_taken_for_a_rescaled_one():
    other = sums_of(X, RNG.normal(size=X.shape))
    assert not other.rescaled
    assert other.snr_db() < 1
