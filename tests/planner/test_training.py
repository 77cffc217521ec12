import time

import keras
import numpy as np
import pytest
from keras import layers

from tfcompress.model.quantized import is_quantized
from tfcompress.planner.recipe import Recipe
from tfcompress.planner.steps.channels import Channels
from tfcompress.planner.steps.int8 import Int8File
from tfcompress.planner.steps.low_rank import LowRank
from tfcompress.planner.steps.qat import QuantizationAware
from tfcompress.planner.steps.zeros import Zeros
from tfcompress.planner.training import TimeUp, Training, digest, initial_rate, rungs_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 16)).astype("float32")
Y = (X.sum(1) > 0).astype("int64")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture
def teacher():
    model = keras.Sequential(
        [keras.Input((16,), name="x"), layers.Dense(32, "relu"), layers.Dense(2, name="y")]
    )
    model.compile(keras.optimizers.Adam(0.01), LOSS, jit_compile=False)
    return model


@pytest.fixture
def training(teacher, tmp_path):
    """A function of other settings that makes the training of the teacher's students."""

    def make(**settings):
        given = {
            "model": teacher, "data": (X, Y), "samples": {"x": X}, "batch_size": 16,
            "rungs": (1, 3), "fine_tune": None, "folder": tmp_path, "context": "net",
            "seed": 0, "end": time.monotonic() + 600,
        }  # fmt: skip
        return Training(**{**given, **settings})

    return make


def recipe(*changes, epochs):
    return Recipe(Int8File(), changes, epochs)


def zeros(model):
    kernels = [w.numpy() for w in model.trainable_variables if w.name == "kernel"]
    return 1 - sum(map(np.count_nonzero, kernels)) / sum(kernel.size for kernel in kernels)


def test_untrained_model_shows_its_cost_and_the_original_stays(training, teacher):
    before = [weight.copy() for weight in teacher.get_weights()]
    model = training().changed(recipe(Channels(0.5), Zeros(0.75), epochs=0))
    assert model.count_params() < teacher.count_params()
    assert zeros(model) == pytest.approx(0.75, abs=0.05)  # two outputs make blocks of two
    model = training().changed(recipe(Zeros(0.75), epochs=0))
    assert zeros(model) == pytest.approx(0.75, abs=0.03)
    for old, new in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_next_rung_goes_on_with_the_model_of_the_one_before_and_keeps_its_zeros(training):
    done = training()
    first = done.changed(recipe(Zeros(0.75), epochs=1))
    assert zeros(first) == pytest.approx(0.75, abs=0.03)
    further = done.changed(recipe(Zeros(0.75), epochs=3))
    for a, b in zip(first.get_weights(), further.get_weights(), strict=True):
        assert np.all(b[a == 0] == 0) or a.ndim == 1  # biases begin at zero, and move
        assert np.any(a != b)
    # The same two trainings at once, elsewhere, give the same weights.
    other = training(folder=done.folder / "other")
    other.folder.mkdir()
    again = other.changed(recipe(Zeros(0.75), epochs=3))
    for a, b in zip(further.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_trained_model_is_read_from_the_folder(training, monkeypatch):
    wanted = recipe(LowRank(0.5), epochs=1)
    first = training().changed(wanted)
    monkeypatch.setattr(Training, "_train", None)
    for a, b in zip(first.get_weights(), training().changed(wanted).get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow("trains for int8 once more")
def test_quantization_aware_model_is_trained_once_more(training):
    model = training().changed(recipe(Zeros(0.5), QuantizationAware(), epochs=1))
    assert is_quantized(model)
    assert zeros(model) == pytest.approx(0.5, abs=0.05)


def test_fine_tune_of_the_users_gets_the_model_and_its_epochs(training):
    seen = []

    def fine_tune(model, epochs):
        seen.append((model.count_params(), epochs))

    training(fine_tune=fine_tune).changed(recipe(Channels(0.5), epochs=3))
    assert [epochs for _, epochs in seen] == [1, 2]


def test_training_beyond_the_end_is_given_up_and_not_kept(training):
    late = training(end=time.monotonic() - 1)
    with pytest.raises(TimeUp):
        late.changed(recipe(Channels(0.5), epochs=1))
    assert list(late.folder.glob("*.keras")) == []


def test_original_teaches_classes_only(training, teacher):
    assert training().distils
    teacher.compile("adam", "mse", jit_compile=False)
    assert not training().distils


def test_rate_is_the_one_that_the_optimizer_began_with():
    schedule = keras.optimizers.schedules.CosineDecay(0.5, 10)
    assert initial_rate(keras.optimizers.SGD(schedule)) == 0.5
    assert initial_rate(keras.optimizers.Adam(0.25)) == 0.25


def test_rungs_have_steps_enough():
    assert rungs_of((X, Y), 32)[:2] == (200, 600)
    assert rungs_of((np.zeros((64_000, 1)), np.zeros(64_000)), 32)[:2] == (1, 3)


def test_digest_tells_models_data_and_settings_apart(teacher):
    other = keras.models.clone_model(teacher)
    found = {digest(teacher, X), digest(other, X), digest(teacher, Y)}
    assert len(found | {digest(teacher, X, settings=[1])}) == 4
    other.set_weights(teacher.get_weights())
    assert digest(other, X) == digest(teacher, X)
