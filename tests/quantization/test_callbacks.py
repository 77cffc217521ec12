import itertools

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from tfcompress.quantization.fake_quant import fake_quants
from tfcompress.quantization.wrapper import QuantizeWrapper


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


@pytest.fixture
def learned(conv):
    """With learned ranges, and an optimizer that moves variables whose gradient is zero."""
    scheme = tfc.QuantizationScheme(ranges="learned")
    model = tfc.quantize_aware(tfc.strip(conv), scheme=scheme)
    model.compile(keras.optimizers.AdamW(0.01, weight_decay=0.1), "mse", jit_compile=False)
    return model


def kernels(model):
    return [v.numpy() for v in model.trainable_variables if v.name == "kernel"]


@pytest.mark.parametrize("when", [{"epoch": 2}, {"step": 5}], ids=str)
@pytest.mark.slow("traces a step with learned ranges again and again")
def test_freeze_ranges_keeps_the_optimizer_from_learned_ranges(learned, when):
    before = [layer.get_weights() for layer in fake_quants(learned)]
    record = fit(learned, tfc.FreezeRanges(**when))
    assert changed([before, *record.ranges]) == [True, True, False, False]
    # They stay in a `fit` without the callback; another callback lets them move until its time.
    weights, ranges = kernels(learned), record.ranges[-1]
    record = fit(learned, epochs=1)
    assert changed([ranges, *record.ranges]) == [False]
    assert all(changed([weights, kernels(learned)]))
    record = fit(learned, tfc.FreezeRanges(epoch=1), epochs=2)
    assert changed([ranges, *record.ranges]) == [True, False]


@pytest.mark.slow("traces a step with learned ranges again and again")
def test_freeze_ranges_lasts_in_a_saved_model_with_learned_ranges(learned, tmp_path):
    record = fit(learned, tfc.FreezeRanges(epoch=1), epochs=2)
    learned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for old, new in zip(learned.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(old, new)
    assert changed([record.ranges[-1], *fit(loaded, epochs=1).ranges]) == [False]
    assert changed([record.ranges[-1], *fit(loaded, tfc.FreezeRanges(epoch=9)).ranges])[0]


def test_freeze_ranges_refuses_learned_ranges_under_averaged_variables(learned):
    learned.compile(keras.optimizers.Adam(0.01, use_ema=True), "mse", jit_compile=False)
    before = learned.get_weights()
    with pytest.raises(ValueError, match=r"fake_quant_.*use_ema=False"):
        fit(learned, tfc.FreezeRanges(epoch=1))
    for old, new in zip(before, learned.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_freeze_batch_norm(conv):
    before = statistics(conv)
    gamma = next(v for v in conv.trainable_variables if v.name == "gamma").numpy()
    record = fit(conv, tfc.FreezeBatchNorm(step=8))
    assert changed([before, *record.statistics]) == [True, True, False, False]
    assert all(changed(record.ranges))
    gammas = next(v for v in conv.trainable_variables if v.name == "gamma").numpy()
    assert (gamma != gammas).all()


@pytest.mark.slow("traces a step for each of many layers")
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


@pytest.mark.slow("traces several steps at once")
def test_both_with_several_steps_per_execution():
    image = keras.Input((6, 6, 2))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(image))
    model = tfc.quantize_aware(keras.Model(image, layers.Dense(3)(layers.Flatten()(x))))
    model.compile("adam", "mse", jit_compile=False, steps_per_execution=2)
    record = fit(model, tfc.FreezeRanges(step=7), tfc.FreezeBatchNorm(step=5))
    assert changed(record.ranges) == [True, False, False]
    assert changed(record.statistics) == [True, False, False]


@pytest.mark.slow("trains two models")
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
        with pytest.raises(ValueError, match="one of `epoch` and `step`"):
            callback(**wrong)
    for wrong in ({"epoch": -1}, {"step": 0.5}, {"epoch": "1"}):
        with pytest.raises(
            (TypeError, ValueError), match=rf"an integer from 0.*{next(iter(wrong.values()))}"
        ):
            callback(**wrong)
    with pytest.raises(ValueError, match=f"{callback.__name__} is for models from quantize_aware"):
        mlp.fit(*data, verbose=0, callbacks=[callback(epoch=1)])
