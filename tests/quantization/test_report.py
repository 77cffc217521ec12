"""The report names every layer, what its file computes it in, and why where that is float."""

import json

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfcompress


@pytest.fixture(scope="module")
def qat():
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 6, 3), name="image")
    y = layers.Conv2D(3, 3, padding="same", use_bias=False, name="conv")(x)
    y = layers.BatchNormalization(name="norm", moving_mean_initializer="random_normal")(y)
    y = layers.ReLU(name="relu")(y)
    y = layers.ReLU(name="both")(layers.Add(name="sum")([x, y]))
    y = layers.LayerNormalization(name="float")(y)
    y = layers.Flatten(name="flat")(y)
    y = layers.Dense(2, activation="softmax", name="classes")(y)
    head = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="last")], name="head")
    qat = tfcompress.quantize_aware(keras.Model(x, head(y), name="tiny"), float_last=True)
    return tfcompress.calibrate(qat, np.random.default_rng(0).random((8, 6, 6, 3), "float32"))


def test_every_layer_is_there_with_its_reason(qat):
    report = tfcompress.qat_report(qat)
    rows = {row.path: row for row in report.layers}
    assert rows["conv"].type == "Conv2D + BatchNormalization + ReLU"
    assert {path: row.kernel for path, row in rows.items() if row.kernel} == {
        "conv": "int8 per channel",
        "classes": "int8 per channel",
        "head/last": "float",
    }
    assert {row.path: row.floating for row in report.floating} == {
        "float": "its sums of squares need float",
        "head/last": "kept in float on request",
    }
    assert rows["sum"].output == "none: one op with 'both'"
    assert rows["both"].range[0] == 0.0 < rows["both"].range[1]
    assert rows["classes"].range == (0.0, 255 / 256)  # what TFLite prescribes for a softmax


def test_it_prints_and_becomes_json(qat):
    report = tfcompress.qat_report(qat)
    text = str(report)
    assert max(map(len, text.splitlines())) <= 100
    assert all(row.path in text for row in report.layers)
    assert json.loads(json.dumps(report.to_dict()))["layers"][1]["path"] == "conv"


def test_a_float_model_has_nothing_to_report():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="not quantization-aware"):
        tfcompress.qat_report(model)


class Block(layers.Layer):
    """A layer made of layers that cannot be opened; TFLite knows no range between them."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4)

    def build(self, shape):
        self.dense.build(shape)
        self.built = True

    def call(self, x, training=False):
        return self.dense(x) if training else x + self.dense(x)


def test_a_layer_that_cannot_be_opened_is_float_and_not_rounded():
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2, name="head")(Block(name="block")(x)))
    report = tfcompress.qat_report(tfcompress.quantize_aware(model))
    assert [row.path for row in report.floating] == ["block"]
    assert {row.path: row.kernel for row in report.layers if row.kernel} == {
        "block": "float",
        "head": "int8 per channel",
    }
    summary = tfcompress.summary(tfcompress.quantize_aware(model))
    assert {row.path: row.bits for row in summary.grouped() if "block" in row.path}["block"] == (
        32,
    )


def test_the_report_says_how_many_steps_are_unrolled():
    model = keras.Sequential([keras.Input((5, 3)), layers.GRU(2, name="gru"), layers.Dense(1)])
    (row,) = [
        row
        for row in tfcompress.qat_report(tfcompress.quantize_aware(model)).layers
        if row.path == "gru"
    ]
    assert "unrolled: the file holds all 5 steps" in row.output


def test_what_gives_no_floats_has_no_range():
    x = keras.Input((4,))
    scores = layers.Dense(3, name="scores")(x)
    # Keras believes that every Lambda gives floats.
    classes = layers.Lambda(lambda t: ops.argmax(t, -1), name="classes")(scores)
    qat = tfcompress.quantize_aware(keras.Model(x, [scores, classes]))
    tfcompress.calibrate(qat, np.eye(4, dtype="float32"))
    qat.compile("sgd", loss=["mse", None], jit_compile=False)
    qat.fit(np.eye(4), [np.zeros((4, 3))], verbose=0)
    _, found = qat(np.eye(4, dtype="float32"))
    assert "int" in str(found.dtype)


def test_scores_before_a_mask_are_rounded_in_the_softmax():
    scores = keras.Input((4, 4), name="scores")
    mask = keras.Input((4, 4), dtype="bool", name="mask")
    weights = layers.Softmax(name="softmax")(scores * 0.5, mask)
    model = keras.Model([scores, mask], layers.Dense(2, name="head")(weights))
    [product] = [
        layer
        for layer in tfcompress.qat_report(tfcompress.quantize_aware(model)).layers
        if layer.type == "Multiply"
    ]
    assert (product.output, product.floating) == ("int8, in a range inside 'softmax'", "")


class OwnNorm(layers.Layer):
    def call(self, x):
        return x * keras.ops.rsqrt(keras.ops.mean(x**2, axis=-1, keepdims=True) + 1e-6)


def test_a_normalization_of_its_own_class_is_float_for_its_squares():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(OwnNorm(name="norm")(inputs)))
    floating = tfcompress.qat_report(tfcompress.quantize_aware(model)).floating
    assert [(layer.path, layer.floating) for layer in floating] == [
        ("norm", "its sums of squares need float")
    ]
