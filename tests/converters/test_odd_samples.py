"""Calibration samples that are unlike what a model was trained on."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfcompress import converters
from tfcompress.converters.odd_samples import integers_for_floats, unlike_normalization
from tfcompress.converters.preparation import prepare
from tfcompress.model.samples import load_samples
from tfcompress.model.signature import signature

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 1)).astype("uint8")


def net(*first):
    return keras.Sequential([keras.Input((6, 6, 1), name="image"), *first, layers.Conv2D(2, 3)])


def said(check, model, data, *args):
    inputs = signature(model).inputs
    return check(model, inputs, *args, load_samples(data, inputs))


@pytest.mark.parametrize(
    ("first", "data"),
    [
        ((), PIXELS),
        ((layers.ZeroPadding2D(1), layers.Dropout(0.1)), {"image": PIXELS}),
        (
            (keras.Sequential([keras.Input((6, 6, 1)), layers.Conv2D(1, 1)]),),
            PIXELS.astype("int32"),
        ),
        ((), tf.data.Dataset.from_tensor_slices((PIXELS, PIXELS)).batch(4)),
    ],
    ids=["array", "dict", "nested", "dataset"],
)
def test_integers_for_a_float_input_that_nothing_scales_are_told(first, data):
    (text,) = said(integers_for_floats, net(*first), data, data)
    assert "'image' are " in text
    assert "range from 0 to 255" in text
    assert "layer 'conv2d" in text


@pytest.mark.parametrize(
    ("first", "data"),
    [
        ((layers.Rescaling(1 / 255),), PIXELS),
        ((layers.BatchNormalization(),), PIXELS),
        ((), PIXELS.astype("float32")),
    ],
    ids=["rescaled", "normalized", "float32"],
)
def test_integers_that_are_meant_are_not_told(first, data):
    assert said(integers_for_floats, net(*first), data, data) == []


def test_samples_far_from_what_a_normalization_learned_are_told():
    norm = layers.Normalization(name="pascal")
    rng = np.random.default_rng(0)
    raw = rng.normal([20, 101325], [8, 900], (64, 2)).astype("float32")
    norm.adapt(raw)
    model = keras.Sequential([keras.Input((2,), name="x"), norm, layers.Dense(1)])
    assert said(unlike_normalization, model, raw) == []
    (text,) = said(unlike_normalization, model, (raw - raw.mean(0)) / raw.std(0))
    assert "layer 'pascal' expects about" in text
    # Images from 0 to 1 for a layer that learned 0 to 255 are near its mean, but do not vary.
    norm = layers.Normalization(axis=-1, mean=120.0, variance=60.0**2)
    assert len(said(unlike_normalization, net(norm), PIXELS / 255)) == 1
    assert said(unlike_normalization, net(norm), PIXELS) == []


def test_prepare_tells_what_is_odd_once_for_all_files():
    precision = converters.Int8(calibration=PIXELS)
    prepared = prepare(net(), {"a": precision, "b": precision}, None)
    assert len(prepared.warnings) == 1
