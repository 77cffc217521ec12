import numpy as np
import pytest

from tfcompress.converters.jobs.histogram import BINS, VALUES, Histogram, NotFinite, thinned

RNG = np.random.default_rng(0)
CASES = {
    "normal": RNG.normal(size=(8, 500)),
    "positive": RNG.exponential(size=(8, 500)) + 0.1,
    "negative": -RNG.exponential(size=(8, 500)),
    "with_zeros": np.maximum(RNG.normal(size=(8, 500)), 0),
    "tiny": RNG.normal(size=(8, 500)) * 1e-42,
    "huge": RNG.normal(size=(8, 500)) * 1e37,
    "far_from_zero": 1e4 + RNG.random((8, 500)),
    "one_value": np.full((2, 3), -0.7),
}


def edges(seen):
    return np.ldexp(seen.first + np.arange(len(seen.counts) + 1.0), seen.exponent)


@pytest.mark.parametrize("values", [v.astype("float32") for v in CASES.values()], ids=CASES.keys())
def test_counts_are_those_of_numpy(values):
    seen = Histogram().add(values)
    assert (seen.low, seen.high) == (values.min(), values.max())
    assert seen.zeros == np.sum(values == 0)
    wanted, _ = np.histogram(values[values != 0].astype(np.float64), edges(seen))
    np.testing.assert_array_equal(seen.counts, wanted)
    np.testing.assert_allclose(seen.centers, (edges(seen)[:-1] + edges(seen)[1:]) / 2, rtol=1e-12)
    # The width is a power of two, so that up to half of the bins stay unused.
    assert BINS / 2 <= len(seen.counts) <= BINS + 2


def test_runs_in_any_order_give_equal_counts():
    parts = [values.astype("float32") for name, values in CASES.items() if name != "tiny"]
    parts += [np.zeros((2, 5), "float32")]
    forth, back = Histogram(), Histogram()
    for part in parts:
        forth = forth.add(part)
    for part in reversed(parts):
        back = back.add(part)
    assert forth == back
    np.testing.assert_array_equal(forth.counts, back.counts)
    assert forth.counts.sum() + forth.zeros == sum(part.size for part in parts)


def test_only_zeros():
    seen = Histogram().add(np.zeros((2, 5), "float32"))
    assert (seen.low, seen.high, seen.zeros, seen.counts.sum()) == (0.0, 0.0, 10, 0)


def test_nothing_is_added_by_an_empty_array():
    seen = Histogram().add(np.ones((1, 2), "float32"))
    assert seen.add(np.zeros((0, 4), "float32")) is seen


def test_infinite_values_are_left_out():
    values = np.float32([[1.0, -np.inf, 2.0], [np.inf, -1.0, 0.0]])
    seen = Histogram().add(values)
    assert (seen.low, seen.high, seen.zeros, seen.counts.sum()) == (-1.0, 2.0, 1, 3)


def test_nan_is_refused():
    with pytest.raises(NotFinite, match="NaN"):
        Histogram().add(np.float32([[1.0, np.nan]]))


def test_bounds_are_those_of_all_values_and_counts_those_of_some():
    values = RNG.normal(size=(3, 10 * VALUES)).astype("float32")
    values[1, 1] = 40.0  # not among those counted
    seen = Histogram().add(values)
    assert seen.high == 40.0
    assert seen.counts.sum() == thinned(values).size <= 3 * VALUES


def test_thinned_meets_every_channel_alike():
    channels = 64
    images = np.broadcast_to(np.arange(channels), (2, 40, 40, channels))
    chosen = thinned(images)
    assert VALUES / 2 < chosen.shape[1] <= VALUES
    numbers = np.bincount(chosen.reshape(-1), minlength=channels)
    assert numbers.max() - numbers.min() <= 2


def test_thinned_takes_a_vector_as_one_sample():
    assert thinned(np.arange(5)).tolist() == [[0, 1, 2, 3, 4]]
