import numpy as np
import pytest

from tfcompress.converters.jobs.histogram import Histogram
from tfcompress.converters.jobs.range_choices import (
    CHOICES,
    TAIL,
    _extreme_values,
    choose,
    minmax,
    mse,
    percentile,
    unseen,
)

RNG = np.random.default_rng(0)
SIZE = (10, 4000)
NORMAL = RNG.normal(size=SIZE)
VALUES = {
    "normal": NORMAL,
    "relu": np.maximum(NORMAL, 0.0),
    "negative": np.minimum(NORMAL, 0.0),
    "uniform": RNG.uniform(-2, 3, SIZE),
    "laplace": RNG.laplace(size=SIZE),
    "outlier": np.where(np.arange(SIZE[1]) == 7, 9 + NORMAL, NORMAL),
    "swish": NORMAL / (1 + np.exp(-3 * NORMAL)),
    "far_from_zero": 3 + 0.1 * NORMAL,
}
each = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())


def squared_error(values, low, high):
    """Round to int8 by the TFLite specification, and back."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    zero = np.rint(-128 - low / scale)
    steps = np.clip(np.rint(values / scale) + zero, -128, 127)
    return np.mean(((steps - zero) * scale - values) ** 2)


@each
def test_mse_is_as_good_as_a_search_by_trial(values):
    low, high = mse(Histogram().add(values))
    shares = np.linspace(0.05, 1.0, 24)
    lows = min(values.min(), 0.0) * (shares if values.min() < 0 else np.ones(1))
    highs = max(values.max(), 0.0) * (shares if values.max() > 0 else np.ones(1))
    best = min(squared_error(values, a, b) for a in lows for b in highs)
    # The model of even noise in a step is off by some percent, and so is each grid.
    assert squared_error(values, low, high) <= 1.05 * best


def minmax_of(values):
    return float(values.min()), float(values.max())


def test_mse_cuts_outliers_and_keeps_what_it_gains_nothing_by():
    least, most = minmax_of(VALUES["laplace"])
    low, high = mse(Histogram().add(VALUES["laplace"]))
    assert 0.95 * least < low < 0.0 < high < 0.95 * most
    assert mse(Histogram().add(VALUES["uniform"])) == minmax_of(VALUES["uniform"])
    assert mse(Histogram().add(VALUES["relu"]))[0] == 0.0


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", [0.0, 2.5, -1.0])
def test_a_tensor_of_one_value_keeps_it(name, value):
    seen = Histogram().add(np.full((3, 4), value, "float32"))
    low, high = CHOICES[name](seen)
    assert low == high == value


@pytest.mark.parametrize("draw", [RNG.normal, RNG.laplace, RNG.exponential])
def test_mse_leaves_room_for_other_samples_where_values_are_few(draw):
    new = draw(size=(20_000, 8))
    few = [draw(size=(64, 8)) for _ in range(20)]
    ratios = [
        squared_error(new, *mse(Histogram().add(seen))) / squared_error(new, *minmax_of(seen))
        for seen in few
    ]
    assert np.median(ratios) < 0.75
    # 64 samples may hold a value that few others reach: half a bit, 3 dB, is lost at most.
    assert max(ratios) < 2.0


def test_mse_leaves_no_room_where_values_end_or_are_many():
    clipped = np.clip(RNG.normal(size=(64, 8)), -0.5, 0.5)
    assert mse(Histogram().add(clipped)) == (-0.5, 0.5)
    many = RNG.uniform(-2, 3, (64, 4000))
    assert mse(Histogram().add(many)) == minmax_of(many)


def test_what_new_samples_add_beyond_a_bound_is_that_of_a_gumbel_distribution():
    highest = RNG.gumbel(3.0, 0.5, 1_000_000).astype(np.float32)
    bounds = np.array([4.5, 5.0, 6.0])
    drawn = (np.maximum(highest[:, None] - bounds, 0.0) ** 2).sum(axis=0)
    # The tail's formula is 3% above the distribution at 4.5; some thousand ends lie beyond 6.
    np.testing.assert_allclose(unseen(highest, bounds), drawn, rtol=0.06)
    np.testing.assert_allclose(unseen(-highest, -bounds), drawn, rtol=0.06)


def test_the_tail_is_half_as_far_from_a_gumbel_distribution_as_the_ends_are():
    shape = 0.4
    ends = (1.0 - RNG.exponential(size=200_000) ** shape) / shape
    found, scale, _ = _extreme_values(ends)
    # 200,000 ends tell the shape to 1%.
    assert abs(found - shape / 2) < 0.01
    assert 0.5 < scale < 1.5


def test_more_steps_clip_less():
    seen = Histogram().add(NORMAL)
    assert mse(seen, steps=15)[1] < mse(seen, steps=255)[1] <= mse(seen, steps=65535)[1]


@each
def test_percentile_is_that_of_numpy(values):
    seen = Histogram().add(values)
    wanted = np.quantile(values, [TAIL, 1 - TAIL], method="inverted_cdf")
    width = 2.0**seen.exponent
    # A bin stands for its middle; the neighbour at a tie is one value farther in.
    gap = np.diff(np.sort(values.reshape(-1)))[[*range(7, 9), -9, -8]].max()
    np.testing.assert_allclose(percentile(seen), wanted, atol=width + gap, rtol=0)


def test_minmax_are_the_bounds():
    assert minmax(Histogram().add(NORMAL)) == minmax_of(NORMAL)


@pytest.mark.parametrize(("bits", "steps"), [(8, 255), (16, 65535)])
def test_a_range_is_chosen_for_the_steps_that_there_are(bits, steps):
    seen = Histogram().add(VALUES["laplace"])
    assert choose("mse", seen, bits) == mse(seen, steps)
    assert choose("percentile", seen, bits) == percentile(seen)
    assert choose("minmax", seen, bits) == minmax(seen)


def test_choices_are_named_as_the_option():
    assert list(CHOICES) == ["mse", "minmax", "percentile"]
