"""The report names every layer, what its file computes it in, and why where that is float."""

import json

import keras
import numpy as np
import pytest
from keras import layers

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


def test_report_says_what_is_unrolled_and_what_that_costs():
    model = keras.Sequential([keras.Input((3, 2)), layers.GRU(4, name="memory"), layers.Dense(1)])
    report = tfcompress.qat_report(tfcompress.quantize_aware(model))
    assert [layer.path for layer in report.layers if layer.unrolled] == ["memory"]
    assert "GRU, unrolled" in str(report)
    assert "12 times as large" in " ".join(str(report).split())
    plain = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    assert "nrolled" not in str(tfcompress.qat_report(tfcompress.quantize_aware(plain)))
