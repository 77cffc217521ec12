"""The numerics of int8 training against NumPy in float64, by the formulas of the papers."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tfcompress.quantization import numerics

# float32 computes a step's number, at most 255, to 255 * 2^-23 = 3e-5 steps and some more: closer
# than this to the middle between two steps, either is right.
UNDECIDED = 5e-4
# Relative error of what a few float32 operations give.
CLOSE = 1e-6

EXPONENTS = st.sampled_from([-10, -3, 0, 3, 20])
MANTISSAS = st.floats(0.0, 10.0, width=32)


@st.composite
def ranges(draw):
    """Low and high: around zero or not, one end or both at zero, tiny and huge."""
    low = -draw(MANTISSAS) * 10.0 ** draw(EXPONENTS)
    high = draw(MANTISSAS) * 10.0 ** draw(EXPONENTS)
    kind = draw(st.sampled_from(["around", "positive", "negative", "from zero", "nothing"]))
    low, high = {
        "around": (low, high),
        "positive": (0.5 * high, high),
        "negative": (low, 0.5 * low),
        "from zero": (0.0, high),
        "nothing": (0.0, 0.0),
    }[kind]
    # What is narrower than 1e-12 has no width.
    assume(high - low == 0.0 or high - low > 1e-11)
    return float(np.float32(low)), float(np.float32(high))


def step_and_zero_point(low, high):
    """Jacob et al. 2018, section 3, equations 11 and 12; the range first includes zero.

    Where zero would lie midway between two steps, they are a 2048th wider, and a range
    without width counts as 0 to 1: see `step_size`.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low or 1.0) / 255
    if abs(-low / step % 1 - 0.5) < 0.01:
        step *= 1 + 2**-11
    return step, np.clip(np.round(-low / step), 0, 255)


def decided(steps):
    return np.abs(steps - np.floor(steps) - 0.5) > UNDECIDED


def points_within(low, high):
    """Values inside, at the ends and beyond; zero among them."""
    low, high = min(low, 0.0), max(high, 0.0)
    inside = np.linspace(1.3 * low - 0.3 * high, 1.3 * high - 0.3 * low, 613)
    return np.float32(np.append(inside, [0.0, low, high]))


def gradients(function, *values):
    """Of the sum of the outputs, each times its own weight; and the weights."""
    tensors = [tf.constant(value, tf.float32) for value in values]
    weights = np.random.default_rng(0).normal(size=np.shape(values[0])).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        total = tf.reduce_sum(weights * function(*tensors))
    return [np.asarray(g) for g in tape.gradient(total, tensors)], weights.astype(np.float64)


@given(ranges())
@settings(max_examples=150, deadline=None)
@pytest.mark.parametrize("function", [numerics.fake_quant, numerics.fake_quant_learned])
def test_activations_equal_the_reference(function, bounds):
    step, zero_point = step_and_zero_point(*bounds)
    x = points_within(*bounds)
    y = function(tf.constant(x), *map(np.float32, bounds)).numpy()
    assert np.isfinite(y).all()
    assert y[-3] == 0.0  # Padding and ReLU need zero to be exact.
    if step == 0.0:
        # With no range at all nothing is left, but for the smallest step that there is.
        assert np.abs(y).max() <= 1e-12
        return
    # Below 1e-12, a learned range is one of that size: no activation is so small.
    assume(function is numerics.fake_quant or 255 * step > 1e-12)
    assume(decided(max(-bounds[0], 0.0) / step))
    steps = np.float64(x) / step + zero_point
    expected = (np.clip(np.round(steps), 0, 255) - zero_point) * step
    sure = decided(steps)
    np.testing.assert_allclose(y[sure], expected[sure], rtol=CLOSE, atol=1e-4 * step)
    np.testing.assert_array_less(np.abs(y - expected), 1.001 * step)


@pytest.mark.parametrize("function", [numerics.fake_quant, numerics.fake_quant_learned])
@pytest.mark.parametrize("bounds", [(0.0, 2.55), (-1.0, 0.55), (-2.0, 0.0), (0.5, 3.0)])
def test_activations_take_256_values_at_most(function, bounds):
    x = np.linspace(-5, 5, 100_001, dtype=np.float32)
    y = function(tf.constant(x), *bounds).numpy()
    step, zero_point = step_and_zero_point(*bounds)
    numbers = y / step + zero_point
    # The numbers are whole, to float32's precision at 255.
    np.testing.assert_allclose(numbers, np.round(numbers), atol=1e-4)
    assert sorted(set(np.round(numbers).astype(int))) == list(range(256))


@pytest.mark.parametrize("bounds", [(-1.0, 1.55), (0.0, 2.0), (-3.0, -1.0), (0.5, 3.0)])
def test_gradient_passes_inside_and_stops_outside(bounds):
    step, zero_point = step_and_zero_point(*bounds)
    lowest, highest = -zero_point * step, (255 - zero_point) * step
    x = points_within(*bounds)[:-3]
    inside = (x >= lowest) & (x <= highest)
    (dx, low, high), weights = gradients(numerics.fake_quant, x, *bounds)
    np.testing.assert_allclose(dx, weights * inside, rtol=CLOSE)
    # What falls outside moves the bound that it was clipped to, unless zero holds that one.
    sums = weights[x < lowest].sum(), weights[x > highest].sum()
    assert all(abs(total) > 0.1 for total in sums)
    for found, total, held in zip((low, high), sums, (bounds[0] > 0, bounds[1] < 0), strict=True):
        # Sums of some hundred float32.
        np.testing.assert_allclose(found, 0.0 if held else total, rtol=1e-4, atol=1e-5)


@given(st.floats(0.01, 10), st.floats(0.01, 10), st.sampled_from([-6, 0, 15]))
@settings(max_examples=100, deadline=None)
def test_learned_range_has_the_gradient_of_lsq(low, high, exponent):
    """Equations 3 and 5 of Bhalgat et al. 2020, which with z = 0 are equation 3 of Esser et al.

    The range's ends reach scale and zero point by s = (high - low) / 255 and z = round(-low / s).
    """
    low, high = (float(np.float32(end * 10.0**exponent)) for end in (-low, high))
    step, zero_point = step_and_zero_point(low, high)
    assume(decided(-low / step))
    x = points_within(low, high)
    steps = np.float64(x) / step + zero_point
    x = x[decided(steps) & (np.abs(steps) > UNDECIDED) & (np.abs(steps - 255) > UNDECIDED)]
    steps = np.float64(x) / step + zero_point
    (dx, d_low, d_high), weights = gradients(numerics.fake_quant_learned, x, low, high)
    below, above = steps < 0, steps > 255
    inside = ~(below | above)
    by_step = np.where(inside, np.round(steps) - steps, np.where(below, 0, 255) - zero_point)
    by_zero_point = np.where(inside, 0.0, -step)
    d_step, d_zero_point = (weights * by_step).sum(), (weights * by_zero_point).sum()
    damping = 1 / np.sqrt(255 * x.size)
    # z falls with low by 1 / s, and with s by z / s.
    expected_high = damping * (d_step - d_zero_point * (-low / step) / step) / 255
    expected_low = -expected_high - damping * d_zero_point / step
    np.testing.assert_allclose(dx, weights * inside, rtol=CLOSE)
    # Rounding errors of 3e-5 steps in each of 600 terms of weight 1, and sums that may cancel.
    scale = damping * np.abs(weights * by_step).sum() / 255 + damping * np.abs(weights).sum()
    np.testing.assert_allclose([d_low, d_high], [expected_low, expected_high], atol=1e-4 * scale)


def test_learned_range_that_clips_grows_and_one_too_wide_shrinks():
    x = np.random.default_rng(0).normal(size=1000).astype(np.float32)

    def loss(high):
        return tf.reduce_sum((numerics.fake_quant_learned(x, -high, high) - x) ** 2)

    for start in (0.2, 30.0):
        high = tf.Variable(start)
        with tf.GradientTape() as tape:
            error = loss(high)
        gradient = tape.gradient(error, high)
        assert (gradient < 0) == (start == 0.2)
        assert loss(high - 0.01 * start * tf.sign(gradient)) < error


@given(ranges())
@settings(max_examples=150, deadline=None)
def test_nudged_is_the_range_of_fake_quant(bounds):
    """Also where zero lies midway between two steps, as in -1 to 1."""
    for low, high in (bounds, (-bounds[1], bounds[1])):
        ends = numerics.fake_quant(tf.constant([-1e30, 1e30]), np.float32(low), np.float32(high))
        found = numerics.nudged(low, high)
        np.testing.assert_allclose(found, ends, rtol=CLOSE, atol=1e-4 * max(high - low, 0) / 255)
        again = numerics.nudged(*found)
        np.testing.assert_allclose(again, found, rtol=CLOSE)
        step, _ = step_and_zero_point(*found)
        if step > 1e-30:
            np.testing.assert_allclose(found[0] / step, np.round(found[0] / step), atol=1e-3)
            # Within a step of what was asked for.
            asked = min(low, 0.0), max(high, 0.0)
            asked = asked if asked[1] - asked[0] > 1e-12 else (0.0, 1.0)
            assert (
                np.abs(np.subtract(found, asked)).max() < 0.57 * step
            )  # 0.5, and 255 steps of a 4096th


def test_one_zero_point_with_and_without_xla():
    compiled = tf.function(numerics.fake_quant, jit_compile=True)
    for high in np.random.default_rng(0).uniform(0.1, 10, 30).astype(np.float32):
        x = tf.constant([-1e9, 0.0, 1e9])
        found = compiled(x, tf.constant(-high), tf.constant(high))
        expected = numerics.fake_quant(x, -high, high)
        # XLA leaves the last bit of the largest value at zero.
        np.testing.assert_allclose(found, expected, rtol=CLOSE, atol=CLOSE * high)


@given(ranges())
@settings(max_examples=100, deadline=None)
def test_symmetric_range(bounds):
    low, high = (float(b) for b in numerics.symmetric_range(*map(np.float32, bounds)))
    largest = max(-bounds[0], bounds[1], 0.0) or 1.0
    np.testing.assert_allclose(high, largest, rtol=CLOSE)
    np.testing.assert_allclose(low, -largest * 128 / 127, rtol=CLOSE)
    if largest > 1e-30:
        # int8's 0, which is 128 counted from the lowest.
        assert step_and_zero_point(low, high)[1] == 128
        np.testing.assert_allclose(numerics.nudged(low, high), (low, high), rtol=CLOSE)


KERNELS = [
    ((7, 5), (1,)),
    ((3, 3, 4, 6), (3,)),
    ((3, 3, 6, 1), (2, 3)),
    ((4, 2, 3), (1, 2)),
    ((8,), ()),
]


def kernel_reference(weights, axes, largest=None):
    """TFLite's quantization specification: -127 to 127, a scale for each output channel."""
    shared = tuple(axis for axis in range(weights.ndim) if axis not in axes)
    weights = np.float64(weights)
    most = np.abs(weights).max(axis=shared, keepdims=True)
    step = (most if largest is None else np.minimum(np.abs(largest), most)) / 127
    steps = np.divide(weights, step, out=np.zeros_like(weights), where=step > 0)
    return np.clip(np.round(steps), -127, 127) * step, steps, step


@pytest.mark.parametrize(("shape", "axes"), KERNELS, ids=str)
@pytest.mark.parametrize("exponent", [-25, 0, 25])
def test_kernels_equal_the_reference(shape, axes, exponent):
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32) * 10.0**exponent
    weights = weights.astype(np.float32)
    expected, steps, step = kernel_reference(weights, axes)
    found = numerics.fake_quant_kernel(tf.constant(weights), axes).numpy()
    sure = decided(steps)
    assert sure.mean() > 0.9
    np.testing.assert_allclose(found[sure], expected[sure], rtol=CLOSE)
    np.testing.assert_array_less(np.abs(found - expected), np.broadcast_to(1.001 * step, shape))


def test_zeros_stay_and_a_channel_of_zeros_is_no_error():
    weights = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
    weights[::2] = 0.0
    weights[:, 3] = 0.0
    weights[:, 4] = 1e-40  # float32 has fewer bits down there, and some machines none.
    limit = tf.constant(np.full((1, 6), 0.5, np.float32))
    for largest in (None, limit):
        found, weights_gradient = None, None
        tensor = tf.constant(weights)
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            found = numerics.fake_quant_kernel(tensor, (1,), largest)
        weights_gradient = tape.gradient(found, tensor).numpy()
        assert not np.any(found.numpy()[weights == 0.0])
        assert np.isfinite(found.numpy()).all()
        assert np.isfinite(weights_gradient).all()


@pytest.mark.parametrize(("shape", "axes"), KERNELS, ids=str)
def test_kernels_pass_their_gradient_whole(shape, axes):
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    (found,), upstream = gradients(lambda w: numerics.fake_quant_kernel(w, axes), weights)
    np.testing.assert_array_equal(found, upstream.astype(np.float32))


@pytest.mark.parametrize(("shape", "axes"), KERNELS, ids=str)
def test_learned_limits_are_lsqs(shape, axes):
    """Esser et al. 2020, equation 3, per channel; the limit is 127 scales."""
    rng = np.random.default_rng(1)
    weights = rng.normal(size=shape).astype(np.float32)
    shared = tuple(axis for axis in range(len(shape)) if axis not in axes)
    most = np.abs(weights).max(axis=shared, keepdims=True)
    # Some below the largest weight, so that they clip; one above it, where it does not count.
    limit = (most * rng.uniform(0.3, 0.9, most.shape)).astype(np.float32)
    limit.flat[-1] = 2 * most.flat[-1]

    def function(weights, limit):
        return numerics.fake_quant_kernel(weights, axes, limit)

    expected, steps, _ = kernel_reference(weights, axes, limit)
    assert (np.abs(steps) > 127).any() or limit.size == 1
    found = function(tf.constant(weights), tf.constant(limit)).numpy()
    sure = decided(steps)
    np.testing.assert_allclose(found[sure], expected[sure], rtol=CLOSE)

    (dw, dt), upstream = gradients(function, weights, limit)
    inside = np.abs(steps) < 127 + UNDECIDED
    np.testing.assert_allclose(dw, upstream * inside, rtol=CLOSE)
    by_step = np.where(inside, np.round(steps) - steps, np.sign(steps) * 127)
    count = weights.size / limit.size
    total = (upstream * by_step).sum(axis=shared, keepdims=True) / 127 / np.sqrt(127 * count)
    effective = np.broadcast_to(limit < most, total.shape)
    # Each term is off by up to 3e-5 of a step, or 1 where the middle was met.
    noise = np.where(sure, 1e-4, 1.0).sum() / 127
    np.testing.assert_allclose(dt, np.where(effective, total, 0.0), rtol=1e-4, atol=noise)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_float32_rounded_last(dtype):
    x = tf.cast(np.linspace(-3, 3, 500), dtype)
    wide = tf.cast(x, tf.float32)
    for function in (
        lambda x: numerics.fake_quant(x, -1.0, 2.0),
        lambda x: numerics.fake_quant_learned(x, -1.0, 2.0),
        lambda x: numerics.fake_quant_kernel(tf.reshape(x, (50, 10)), (1,)),
        lambda x: numerics.fake_quant_kernel(tf.reshape(x, (50, 10)), (1,), tf.ones((1, 10))),
    ):
        found = function(x)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, tf.cast(function(wide), dtype))


def test_kernels_are_whole_steps_the_largest_of_127():
    weights = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    found = numerics.fake_quant_kernel(tf.constant(weights), (1,)).numpy()
    numbers = found / (np.abs(weights).max(axis=0) / 127)
    np.testing.assert_allclose(numbers, np.round(numbers), atol=1e-4)
    np.testing.assert_array_equal(np.abs(np.round(numbers)).max(axis=0), 127)


def test_biases_are_whole_products_of_steps():
    """TFLite's quantization specification: int32, scale of the input times that of the kernel."""
    rng = np.random.default_rng(0)
    bias, largest = rng.normal(size=(2, 9)).astype(np.float32)
    largest = np.abs(largest)
    largest[4] = 0.0
    expected = bias.astype(np.float64)
    scale = 0.02 * np.float64(largest) / 127
    used = scale > 0
    expected[used] = np.round(expected[used] / scale[used]) * scale[used]
    found = numerics.round_bias(tf.constant(bias), 0.02, tf.constant(largest)).numpy()
    # The numbers reach 1e4 or so, where float32 is good to 1e-3 of a step.
    np.testing.assert_allclose(found, expected, atol=1e-3 * scale.max())
    np.testing.assert_array_equal(numerics.round_bias(bias, None, largest), bias)
    (d_bias, d_largest), upstream = gradients(
        lambda b, w: numerics.round_bias(b, 0.02, w), bias, largest
    )
    np.testing.assert_allclose(d_bias, upstream, rtol=CLOSE)
    assert np.isfinite(d_largest).all()


@pytest.mark.parametrize("bits", [4, 8, 12])
def test_other_bit_widths_follow_the_same_formulas(bits):
    x = np.random.default_rng(0).normal(size=(50, 10)).astype(np.float32)
    low, high, count = -1.0, 2.0, 2**bits - 1
    step = (high - low) / count
    zero = np.floor(-low / step + 0.5)
    expected = step * (np.clip(np.floor(x.astype("float64") / step + zero + 0.5), 0, count) - zero)
    for function in (numerics.fake_quant, numerics.fake_quant_learned):
        found = function(tf.constant(x), low, high, bits).numpy()
        off = np.abs(found - expected)
        # One step where float32 rounds a value in the middle of two the other way.
        assert off.max() <= 1.01 * step and (off > 1e-5).mean() < 0.01

    largest, count = np.abs(x).max(axis=0), 2 ** (bits - 1) - 1
    expected = np.round(x / (largest / count)) * (largest / count)
    found = numerics.fake_quant_kernel(tf.constant(x), (1,), bits=bits).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len(np.unique(np.round(found[:, 0] * count / largest[0]))) <= 2 * count + 1


@pytest.mark.parametrize("bits", [4, 8])
def test_a_range_without_width_counts_as_zero_to_one(bits):
    low, high = numerics.nudged(0.0, 0.0, bits)
    assert (low, round(high, 6)) == (0.0, 1.0)
    np.testing.assert_allclose(numerics.step_size(0.0, 0.0, bits), 1.0 / (2**bits - 1))
    low, high = (float(bound) for bound in numerics.symmetric_range(0.0, 0.0, bits))
    assert high == 1.0
    assert low < -1.0
    np.testing.assert_array_equal(numerics.fake_quant(np.zeros(3, "float32"), 0.0, 0.0, bits), 0.0)
