import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfcompress import FakeQuant
from tfcompress.converters import ConversionError
from tfcompress.converters.export.scope import exporting
from tfcompress.quantization import numerics
from tfcompress.quantization.fake_quant import fake_quants

# Ranges are sums of a few float32 products.
CLOSE = 1e-6


def batches(count=5, spread=1.0):
    rng = np.random.default_rng(0)
    # Some positive throughout, some far from zero: zero must be in each range.
    shifts = rng.normal(size=count) * spread
    return [(rng.normal(size=(4, 3)) + shift).astype(np.float32) for shift in shifts]


def bounds(layer):
    return float(layer.low), float(layer.high)


def extremes(x):
    return min(x.min(), 0.0), max(x.max(), 0.0)


def test_unknown_passes_everything_on():
    layer = FakeQuant()
    x = np.float32([[1e-3, -7.123, 4e5]])
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(layer(x, training=False), x)
    assert bounds(layer) == (0.0, 0.0)
    assert float(layer.seen) == 0.0


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99])
def test_first_batch_sets_and_the_others_move_the_range(momentum):
    """Jacob et al. 2018, section 3.1: an exponential moving average; it starts at the first."""
    layer = FakeQuant(momentum=momentum)
    low, high = None, None
    for x in batches(spread=3.0):
        y = layer(x, training=True).numpy()
        now = extremes(x)
        low = now[0] if low is None else momentum * low + (1 - momentum) * now[0]
        high = now[1] if high is None else momentum * high + (1 - momentum) * now[1]
        np.testing.assert_allclose(bounds(layer), (low, high), rtol=CLOSE, atol=CLOSE)
        # The batch itself is rounded to the range that it has moved.
        expected = numerics.fake_quant(x, np.float32(low), np.float32(high))  # NumPy 1: float64
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(layer(x), y)
    assert len(np.unique(layer(np.linspace(-9, 9, 5000, dtype=np.float32)))) <= 256


def test_a_range_called_more_than_once_covers_all_and_grows_only():
    layer = FakeQuant(calls=3, momentum=0.9)
    first, second, third, wider, narrow = (
        np.float32([low, high]) for low, high in [(-1, 2), (0, 5), (-3, 1), (-4, 9), (-0.1, 0.1)]
    )
    for x in (first, second, third):  # One step of a model that calls it three times
        layer(x, training=True)
    assert bounds(layer) == (-3.0, 5.0)
    layer(narrow, training=True)
    assert bounds(layer) == (-3.0, 5.0)
    layer(wider, training=True)
    np.testing.assert_allclose(bounds(layer), (-3.1, 5.4), rtol=CLOSE)


def test_a_tensor_that_shares_the_range_does_not_shape_it():
    layer = FakeQuant()
    x = np.float32([-1.0, 1.55])
    np.testing.assert_array_equal(layer(3 * x, training=True, observe=False), 3 * x)
    layer(x, training=True)
    y = layer(3 * x, training=True, observe=False)
    np.testing.assert_allclose(y, x, atol=CLOSE)
    np.testing.assert_allclose(bounds(layer), (-1.0, 1.55), rtol=CLOSE)


@pytest.mark.parametrize("ranges", ["moving_average", "learned"])
def test_frozen_or_not_training_leaves_the_range(ranges):
    layer = FakeQuant(ranges)
    layer(np.float32([-1, 2]), training=True)
    layer(np.float32([-5, 9]), training=False)
    layer(np.float32([-5, 9]))
    layer.frozen = True
    y = layer(np.float32([-5, 9]), training=True)
    assert bounds(layer) == (-1.0, 2.0)
    assert y[1] < 2.01


def test_frozen_before_anything_was_seen_passes_everything_on():
    layer = FakeQuant(frozen=True)
    x = np.float32([[0.123456, -7.0]])
    np.testing.assert_array_equal(layer(x, training=True), x)


def test_fixed_needs_no_data_and_has_no_weights():
    layer = FakeQuant(fixed=(0.0, 255 / 256))
    y = layer(np.float32([-1.0, 0.0, 0.501, 2.0]), training=True)
    np.testing.assert_array_equal(y, [0.0, 0.0, 128 / 256, 255 / 256])
    assert layer.variables == []
    assert layer.range() == (0.0, 255 / 256)
    assert list(fake_quants(keras.Sequential([keras.Input((3,)), layer]))) == []


def test_symmetric_has_zero_in_the_middle():
    layer = FakeQuant(symmetric=True)
    layer(np.float32([0.0, 1.27]), training=True)
    low, high = layer.range()
    np.testing.assert_allclose((low, high), (-1.28, 1.27), rtol=CLOSE)
    y = layer(np.linspace(-2, 2, 999, dtype=np.float32)).numpy()
    np.testing.assert_allclose(y / 0.01, np.round(y / 0.01), atol=1e-4)
    np.testing.assert_allclose((y.min(), y.max()), (-1.28, 1.27), rtol=CLOSE)


def test_learned_starts_at_the_first_batch_and_follows_the_gradient():
    layer = FakeQuant("learned")
    x = np.float32([[-1.0, 0.3, 2.0]])
    layer(x, training=True)
    assert bounds(layer) == (-1.0, 2.0)
    layer(5 * x, training=True)
    assert bounds(layer) == (-1.0, 2.0)
    assert [v.name for v in layer.trainable_variables] == ["low", "high"]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum((layer(5 * x, training=True) - 5 * x) ** 2)
    down, up = tape.gradient(loss, [layer.low.value, layer.high.value])
    assert down > 0 > up  # So that a step against the gradient widens it


def test_moving_average_is_not_trained():
    layer = FakeQuant()
    layer(np.float32([-1, 1]), training=True)
    assert layer.trainable_variables == []
    assert [v.name for v in layer.variables] == ["low", "high", "seen"]


def test_observing_collects_the_extremes_and_rounds_nothing():
    layer = FakeQuant(calls=2)
    layer(np.float32([-9, 9]), training=True)
    layer.forget()
    assert not float(layer.seen)
    layer.observing = True
    data = batches(spread=3.0)
    for x in data:
        np.testing.assert_array_equal(layer(x), x)
    layer.observing = False
    assert bounds(layer) == extremes(np.stack(data))
    # Training goes on from here; it does not begin anew.
    layer(np.float32([0.1]), training=True)
    assert bounds(layer) == extremes(np.stack(data))


def test_export_says_what_is_missing():
    layer = FakeQuant(name="act")
    layer.build(None)
    with exporting(), pytest.raises(ConversionError, match=r"'act'.*neither.*trained nor calibrat"):
        layer(tf.constant([1.0]))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"'act' rounds are not finite"):
        layer(np.float32([1.0, np.nan]), training=True)
    # The optimizer moved it there.
    for variable, value in ((layer.low, 0.0), (layer.high, np.nan), (layer.seen, 1.0)):
        variable.assign(value)
    with exporting(), pytest.raises(ConversionError, match=r"'act' is .*nan.*diverged"):
        layer(tf.constant([1.0]))
    layer.low.assign(-1.0)
    layer.high.assign(np.inf)
    with pytest.raises(ConversionError, match=r"'act' is -1.0 to inf"):
        layer.range()


def test_export_gives_what_inference_gives():
    layer = FakeQuant()
    for x in batches():
        layer(x, training=True)
    x = tf.constant(np.linspace(-5, 5, 999, dtype=np.float32))
    with exporting():
        exported = layer(x)
    # The op's attributes are the range's last float32 bits.
    np.testing.assert_allclose(exported, layer(x), atol=1e-6)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_half_precision_keeps_its_range_in_float32(dtype):
    layer = FakeQuant(dtype=dtype)
    policy = keras.dtype_policies.get(dtype)
    x = tf.constant([[-1.0, 0.5, 3.0]], policy.compute_dtype)
    y = layer(x, training=True)
    assert y.dtype == policy.compute_dtype
    assert {variable.dtype for variable in layer.variables} == {"float32"}
    assert bounds(layer) == (-1.0, 3.0)


def test_saved_and_loaded(tmp_path):
    x = keras.Input((3,))
    options = {"momentum": 0.5, "symmetric": True, "calls": 2, "frozen": True}
    fixed = FakeQuant(fixed=(-1.0, 2.0), name="fixed")
    model = keras.Model(x, FakeQuant("learned", name="act", **options)(fixed(x)))
    act = model.get_layer("act")
    act.frozen = False
    for data in batches():
        model(data, training=True)
    act.frozen = True
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("act").get_config() == act.get_config()
    assert loaded.get_layer("fixed").fixed == (-1.0, 2.0)
    assert loaded.get_layer("act").range() == act.range()
    data = batches()[0]
    np.testing.assert_array_equal(loaded(data), model(data))


def test_masks_pass_through():
    x = keras.Input((4, 2))
    y = FakeQuant()(layers.Masking()(x))
    model = keras.Model(x, layers.GlobalAveragePooling1D()(y))
    data = np.ones((1, 4, 2), np.float32)
    data[:, 2:] = 0.0
    np.testing.assert_array_equal(model(data), [[1.0, 1.0]])


def test_bad_argument():
    with pytest.raises(ValueError, match="ranges='fixed'"):
        FakeQuant("fixed")


@pytest.mark.parametrize("ranges", ["moving_average", "learned", "minmax"])
@pytest.mark.parametrize(("before", "now"), [(1e-3, 1.0), (1e4, 1.0)])
def test_a_range_that_is_off_by_far_is_set_anew_in_early_training(ranges, before, now):
    layer = FakeQuant(ranges)
    layer(np.float32([-before, before]), training=True)
    layer(np.zeros(2, "float32"), training=True)  # Zeros say nothing.
    y = layer(np.float32([-now, now]), training=True)
    np.testing.assert_allclose(bounds(layer), (-now, now), rtol=1e-5)
    np.testing.assert_allclose(y, (-now, now), rtol=0.01)


def test_a_range_is_not_set_anew_late_in_training_or_if_it_is_shared():
    late, shared = FakeQuant(), FakeQuant(calls=2)
    for _ in range(12):
        late(np.float32([-1.0, 1.0]), training=True)
    late(np.float32([-100.0, 100.0]), training=True)
    np.testing.assert_allclose(bounds(late), (-1.99, 1.99), rtol=1e-4)
    shared(np.float32([-1e4, 1e4]), training=True)
    shared(np.float32([-1.0, 1.0]), training=True)
    shared(np.float32([-1.0, 1.0]), training=True)
    assert bounds(shared) == (-1e4, 1e4)


def test_the_joint_range_is_taken_if_it_is_at_most_twice_as_wide():
    layer = FakeQuant()
    x = np.float32([-1.0, 0.013, 1.55])
    layer(x, training=True)
    for joint, expected in (
        ((-1.0, 4.1), numerics.fake_quant(x, -1.0, 4.1)),
        ((-1.0, 99.0), numerics.fake_quant(x, -1.0, 1.55)),
        ((0.0, 0.0), numerics.fake_quant(x, -1.0, 1.55)),  # not known yet
    ):
        np.testing.assert_array_equal(layer(x, joint=np.float32(joint)), expected)
    whole = FakeQuant()
    whole(np.float32([-1.0, 4.1]), training=True)
    np.testing.assert_allclose(whole(x, only_range=True), (-1.0, 4.1))
    assert layer(x, joint=whole(x, only_range=True), only_step=True) == whole.step()
