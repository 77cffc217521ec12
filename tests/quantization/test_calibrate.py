import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfcompress as tfc
from tests.support.helpers import as_id
from tfcompress.quantization.fake_quant import fake_quants
from tfcompress.quantization.wrapper import QuantizeWrapper

FEATURES = 12


@pytest.fixture
def qat(mlp):
    """hidden (relu) and head, both dense, on 12 features; compiled."""
    model = tfc.quantize_aware(mlp)
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    return model


@pytest.fixture
def conv():
    """With batch normalization, to freeze."""
    image = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, use_bias=False)(image)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.5)(x))
    model = tfc.quantize_aware(keras.Model(image, layers.Dense(3)(layers.Flatten()(x))))
    model.compile("adam", "mse", jit_compile=False)
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


class Record(keras.callbacks.Callback):
    """Ranges and moving statistics as each epoch leaves them."""

    def __init__(self):
        super().__init__()
        self.ranges, self.statistics = [], []

    def on_epoch_end(self, epoch, logs=None):
        self.ranges.append([layer.get_weights() for layer in fake_quants(self.model)])
        self.statistics.append(statistics(self.model))


def statistics(model):
    return [v.numpy() for v in model.non_trainable_variables if "moving" in v.name]


def changed(record):
    """Whether anything moved, from each epoch to the next."""
    flat = [keras.tree.flatten(now) for now in record]
    return [
        any(not np.array_equal(a, b) for a, b in zip(now, after, strict=True))
        for now, after in itertools.pairwise(flat)
    ]


IMAGES = np.random.default_rng(0).normal(size=(32, 6, 6, 2)).astype(np.float32)
TARGETS = np.random.default_rng(1).normal(size=(32, 3)).astype(np.float32)


def fit(model, *callbacks, epochs=4, **options):
    """Four steps an epoch."""
    record = Record()
    model.fit(
        IMAGES,
        TARGETS,
        batch_size=8,
        epochs=epochs,
        verbose=0,
        callbacks=[*callbacks, record],
        **options,
    )
    return record


@pytest.mark.parametrize("when", [{"epoch": 2}, {"step": 5}], ids=str)
def test_freeze_ranges(conv, when):
    before = [layer.get_weights() for layer in fake_quants(conv)]
    callback = tfc.FreezeRanges(**when)
    record = fit(conv, callback)
    assert changed([before, *record.ranges]) == [True, True, False, False]
    assert all(changed(record.statistics))
    assert all(layer.frozen for layer in fake_quants(conv))


def test_freeze_batch_norm(conv):
    before = statistics(conv)
    gamma = next(v for v in conv.trainable_variables if v.name == "gamma").numpy()
    record = fit(conv, tfc.FreezeBatchNorm(step=8))
    assert changed([before, *record.statistics]) == [True, True, False, False]
    assert all(changed(record.ranges))
    gammas = next(v for v in conv.trainable_variables if v.name == "gamma").numpy()
    assert (gamma != gammas).all()


@pytest.mark.slow
def test_freeze_batch_norm_wherever_it_stands():
    """Folded, alone, over another axis, in a nested model, in a layer that is kept in float."""
    image = keras.Input((6, 6, 2))
    x = layers.BatchNormalization(axis=1)(image)
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, name="conv")(x))
    inside = [layers.MaxPooling2D(), layers.BatchNormalization(), layers.Flatten()]
    x = keras.Sequential([keras.Input((4, 4, 4)), *inside])(x)
    float_model = keras.Model(image, layers.Dense(3)(x))
    for exclude in (None, "conv|batch"):
        model = tfc.quantize_aware(float_model, exclude=exclude)
        model.compile("adam", "mse", jit_compile=False)
        before = statistics(model)
        assert len(before) == 6
        record = fit(model, tfc.FreezeBatchNorm(epoch=0), epochs=1)
        assert changed([before, *record.statistics]) == [False]


def test_both_with_several_steps_per_execution():
    image = keras.Input((6, 6, 2))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(image))
    model = tfc.quantize_aware(keras.Model(image, layers.Dense(3)(layers.Flatten()(x))))
    model.compile("adam", "mse", jit_compile=False, steps_per_execution=2)
    record = fit(model, tfc.FreezeRanges(step=7), tfc.FreezeBatchNorm(step=5))
    assert changed(record.ranges) == [True, False, False]
    assert changed(record.statistics) == [True, False, False]


def test_an_instance_serves_two_models(qat, data):
    freeze = tfc.FreezeRanges(epoch=1)
    for model in (qat, keras.models.clone_model(qat)):
        model.compile("adam", "mse", jit_compile=False)
        assert not any(layer.frozen for layer in fake_quants(model))
        model.fit(*data, epochs=2, verbose=0, callbacks=[freeze])
        assert all(layer.frozen for layer in fake_quants(model))


def test_resumed_training_is_frozen_from_the_start(conv, tmp_path):
    fit(conv, tfc.FreezeRanges(epoch=1), epochs=1)
    conv.save(tmp_path / "model.keras")
    resumed = keras.models.load_model(tmp_path / "model.keras")
    before = [layer.get_weights() for layer in fake_quants(resumed)]
    freeze = [tfc.FreezeRanges(epoch=1), tfc.FreezeBatchNorm(step=2)]
    record = fit(resumed, *freeze, epochs=3, initial_epoch=1)
    assert changed([before, *record.ranges]) == [False, False]
    assert changed([statistics(conv), *record.statistics]) == [False, False]


def test_frozen_is_saved(conv, tmp_path):
    fit(conv, tfc.FreezeRanges(epoch=1), tfc.FreezeBatchNorm(epoch=1), epochs=2)
    conv.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert all(layer.frozen for layer in fake_quants(loaded))
    wrappers = [layer for layer in loaded.layers if isinstance(layer, QuantizeWrapper)]
    assert all(layer.frozen_statistics for layer in wrappers)
    record = fit(loaded, epochs=2)
    assert not any(changed(record.ranges) + changed(record.statistics))


def test_ranges_must_be_known_to_be_frozen(qat, data):
    before = qat.get_weights()
    with pytest.raises(ValueError, match=r"fake_quant_hidden.*calibrate"):
        qat.fit(*data, verbose=0, callbacks=[tfc.FreezeRanges(epoch=0)])
    for left, right in zip(before, qat.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    assert not any(layer.frozen for layer in fake_quants(qat))
    tfc.calibrate(qat, data[0])
    known = ranges(qat)
    qat.fit(*data, verbose=0, callbacks=[tfc.FreezeRanges(epoch=0)])
    assert ranges(qat) == known


@pytest.mark.parametrize("callback", [tfc.FreezeRanges, tfc.FreezeBatchNorm])
def test_bad_arguments(mlp, data, callback):
    for wrong in ({}, {"epoch": 1, "step": 2}):
        with pytest.raises(ValueError, match="either an epoch or a step"):
            callback(**wrong)
    for wrong in ({"epoch": -1}, {"step": 0.5}, {"epoch": "1"}):
        with pytest.raises(ValueError, match=rf"whole number.*{next(iter(wrong.values()))}"):
            callback(**wrong)
    with pytest.raises(ValueError, match=f"{callback.__name__} is for models from quantize_aware"):
        mlp.fit(*data, verbose=0, callbacks=[callback(epoch=1)])
