import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfcompress as tfc
from tests.support.helpers import as_id
from tfcompress.quantization.fake_quant import fake_quants

FEATURES = 12


@pytest.fixture
def qat(mlp):
    """hidden (relu) and head, both dense, on 12 features; compiled."""
    model = tfc.quantize_aware(mlp)
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    return model


def ranges(model):
    return {layer.name: layer.range() for layer in fake_quants(model)}


def rounded(kernel):
    """Symmetric, per column, 127 steps."""
    step = np.abs(kernel).max(axis=0) / 127
    return np.round(kernel / step) * step


def reference(model, x):
    """Ranges that NumPy finds: kernels rounded, activations not."""
    kernel, bias, head, last = model.get_weights()
    hidden = np.maximum(x @ rounded(kernel) + bias, 0.0)
    scores = hidden @ rounded(head) + last
    tensors = {"fake_quant_input": x, "fake_quant_hidden": hidden, "head": scores}
    return {name: (min(t.min(), 0.0), max(t.max(), 0.0)) for name, t in tensors.items()}


def named(found):
    """The input layer's name counts up from test to test."""
    return {("fake_quant_input" if "input" in name else name): r for name, r in found.items()}


def forms(x, y, name):
    def generator():
        for sample in x:
            yield sample[None]

    pairs = tf.data.Dataset.from_tensor_slices((x, y))
    return {
        "array": x,
        "dict": {name: x},
        "generator": generator(),
        "batches": [x[:40], x[40:]],
        "dataset": pairs.batch(7),
        "unbatched dataset": pairs,
    }


@pytest.mark.parametrize(
    "form", ["array", "dict", "generator", "batches", "dataset", "unbatched dataset"]
)
def test_calibrate_finds_the_extremes(mlp, qat, data, form):
    x, y = data
    samples = forms(x, y, qat.inputs[0]._keras_history.operation.name)[form]
    # 64 samples, 24 at a time: the last batch is not full.
    assert tfc.calibrate(qat, samples, batch_size=24) is qat
    found, expected = named(ranges(qat)), reference(mlp, x)
    assert found.keys() == expected.keys()
    for name in expected:
        # Sums of 12 products, in float32.
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)


def test_calibrate_again_begins_anew(qat, data):
    x, _ = data
    tfc.calibrate(qat, 10 * x)
    tfc.calibrate(qat, x)
    first = ranges(qat)
    tfc.calibrate(qat, x)
    assert ranges(qat) == first
    assert named(first)["fake_quant_input"] == (x.min(), x.max())


def test_max_samples(qat, data):
    x, _ = data
    tfc.calibrate(qat, iter(x[:, None]), max_samples=5)
    assert named(ranges(qat))["fake_quant_input"] == (x[:5].min(), x[:5].max())


def test_calibrate_from_a_file_and_with_a_fixed_batch(tmp_path, data):
    x, _ = data
    inputs = keras.Input(batch_shape=(10, FEATURES))
    model = keras.Model(inputs, layers.Dense(3, name="head")(inputs))
    qat = tfc.quantize_aware(model)
    np.savez(tmp_path / "samples.npz", x=x)
    tfc.calibrate(qat, tmp_path / "samples.npz")
    kernel, bias = model.get_weights()
    scores = x @ rounded(kernel) + bias
    found = ranges(qat)["head"]
    np.testing.assert_allclose(found, (scores.min(), scores.max()), rtol=1e-5)


def test_calibrate_reaches_nested_models_and_several_inputs(data):
    x, _ = data
    inner = keras.Sequential([keras.Input((FEATURES,)), layers.Dense(4, name="in")], name="inner")
    a, b = keras.Input((FEATURES,), name="a"), keras.Input((FEATURES,), name="b")
    qat = tfc.quantize_aware(keras.Model([a, b], layers.Add(name="sum")([inner(a), inner(b)])))
    tfc.calibrate(qat, {"a": x, "b": 2 * x})
    found = ranges(qat)
    assert len(found) == 4
    assert all(low < 0.0 < high for low, high in found.values())
    np.testing.assert_allclose(found["fake_quant_b"], (2 * x.min(), 2 * x.max()), rtol=1e-6)
    # The inner one is called on both, and holds the wider.
    kernel, bias = inner.get_weights()
    wide = 2 * x @ rounded(kernel) + bias
    (name,) = found.keys() - {"fake_quant_a", "fake_quant_b", "sum"}
    np.testing.assert_allclose(found[name], (wide.min(), wide.max()), rtol=1e-5)


def test_training_moves_calibrated_ranges_on(qat, data):
    tfc.calibrate(qat, 10 * data[0])
    before = named(ranges(qat))["fake_quant_input"]
    qat.fit(*data, batch_size=32, epochs=1, verbose=0)
    after = named(ranges(qat))["fake_quant_input"]
    # Two steps, each 1% towards the batch.
    batches = [before[1] * 0.99**2, before[1] * 0.99**2 + 0.02 * data[0].max()]
    assert batches[0] < after[1] < batches[1]


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (np.ones((3, 5), "float32"), ValueError, r"shape.*12.*\(3, 5\)"),
        (np.ones((0, FEATURES), "float32"), ValueError, "no samples"),
        (iter([]), ValueError, "no samples"),
        (np.full((3, FEATURES), np.nan, "float32"), ValueError, "NaN"),
        ({"other": np.ones((3, FEATURES))}, ValueError, "other"),
        (np.array([["a"] * FEATURES]), ValueError, "float32"),
        (7, TypeError, "Received: 7"),
        ("nowhere.npz", ValueError, "nowhere.npz"),
    ],
    ids=as_id,
)
def test_bad_samples_change_nothing(qat, data, bad, error, message):
    tfc.calibrate(qat, data[0])
    before = ranges(qat)
    with pytest.raises(error, match=message):
        tfc.calibrate(qat, bad)
    assert ranges(qat) == before
    assert not any(layer.observing for layer in fake_quants(qat))


def test_calibrate_wants_a_quantization_aware_model(mlp, data):
    with pytest.raises(ValueError, match="quantize_aware first"):
        tfc.calibrate(mlp, data[0])
    with pytest.raises(TypeError, match=r"keras\.Model"):
        tfc.calibrate("model.keras", data[0])


# Ranges that do not fit what training sees.


def normalized(depth=8):
    """Convolution, batch normalization without statistics and swish, again and again."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((4, 4, 4))
    for _ in range(depth):
        x = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
        x = layers.Activation("swish")(layers.BatchNormalization()(x))
    return keras.Model(image, layers.Dense(2)(layers.Flatten()(x)))


def test_training_after_calibration_without_statistics_does_not_explode():
    x = np.random.default_rng(0).normal(size=(32, 4, 4, 4)).astype("float32")
    qat = tfc.quantize_aware(normalized())
    with pytest.warns(UserWarning, match=r"8 BatchNormalization layers.*'batch_norm.*initial"):
        tfc.calibrate(qat, x)
    before = ranges(qat)
    qat.compile(keras.optimizers.SGD(1e-2), "mse", run_eagerly=True)
    qat.fit(x, np.zeros((32, 2)), batch_size=8, verbose=0)
    assert max(np.abs(v.numpy()).max() for v in qat.trainable_variables) < 5.0
    # Swish of a normalized tensor, not of one that has shrunk to nothing.
    (last,) = (f.name for f in list(fake_quants(qat))[-2:-1])
    assert before[last][1] < 0.1 < 1.0 < ranges(qat)[last][1]


def test_calibrate_says_nothing_of_statistics_that_are_known():
    x = np.random.default_rng(0).normal(size=(8, 4, 4, 4)).astype("float32")
    model = normalized(depth=1)
    model.layers[2].moving_mean.assign(np.ones(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tfc.calibrate(tfc.quantize_aware(model), x)


def test_calibrate_refuses_a_model_that_overflows(qat, data):
    tfc.calibrate(qat, data[0])
    before = ranges(qat)
    layer = qat.layers[2].layer
    layer.kernel.assign(np.full(layer.kernel.shape, 3e38))
    with pytest.raises(ValueError, match=r"'fake_quant_hidden'.*(nan|inf)\. .*stay as they"):
        tfc.calibrate(qat, data[0])
    assert ranges(qat) == before


def test_training_stops_where_values_are_not_finite(qat, data):
    x, y = data
    tfc.calibrate(qat, x)
    x = x.copy()
    x[40:] = np.nan
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"'fake_quant_input.*diverged"):
        qat.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    assert all(np.isfinite(bound).all() for bound in ranges(qat).values())
