"""`verify(by_layer=True)`: each layer of a file against the layer of the model."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from tfcompress import converters

RNG = np.random.default_rng(0)


def net():
    keras.utils.set_random_seed(0)
    inner = keras.Sequential(
        [keras.Input((6, 6, 8)), layers.Conv2D(8, 3, name="conv_1"), layers.ReLU(name="after")],
        name="inner",
    )
    x = image = keras.Input((6, 6, 3), name="image")
    x = layers.Conv2D(8, 1, name="conv", use_bias=False)(x)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.GlobalAveragePooling2D(name="pool")(inner(x))
    return keras.Model(image, layers.Dense(4, "softmax", name="head")(x), name="net")


X = RNG.normal(size=(40, 6, 6, 3)).astype("float32")


def test_every_layer_of_a_float_file_is_the_models(tmp_path):
    model = net()
    file = converters.convert(model, tmp_path / "m.tflite")
    found = converters.verify(model, file, X, by_layer=True)
    by_op = {(row.layer, row.op) for row in found.layers}
    # A convolution and what follows it are one op, which gives what the last of them gives.
    assert by_op == {
        ("relu", "CONV_2D"), ("inner/after", "CONV_2D"), ("pool", "MEAN"), ("head", "SOFTMAX"),
    }  # fmt: skip
    # Sums in another order: 110 dB is a relative error of 3e-6.
    assert all(row.snr_db > 110 and not row.rescaled for row in found.layers)
    assert [row.snr_db for row in found.layers] == sorted(row.snr_db for row in found.layers)
    assert converters.verify(model, file, X).layers == ()


@pytest.mark.slow("converts to int8, and with a fixed batch")
@pytest.mark.parametrize("batch", [None, 4])
def test_a_broken_layer_of_an_int8_file_is_the_one_that_loses(batch, tmp_path):
    model = net()
    kernel = model.get_layer("norm").gamma
    # A channel of a thousand times the range, which the next layer hardly reads.
    factor = np.array([1000, 1, 1, 1, 1, 1, 1, 1], "float32")
    kernel.assign(kernel * factor)
    inside = model.get_layer("inner").layers[0].kernel
    inside.assign(inside / factor[:, None])
    file = tmp_path / "m.tflite"
    with pytest.warns(UserWarning, match=r"A range inside is too wide .*equalize=True"):
        converters.convert(model, file, converters.Int8(calibration=X), batch_size=batch)
    found = converters.verify(model, file, X, by_layer=True)
    rows = {row.layer: row for row in found.layers}
    assert rows["relu"].dtype == "int8"
    assert rows["relu"].uneven > 100
    assert rows["relu"].channels_db < 10 < 30 < rows["relu"].snr_db
    assert max(found.layers, key=lambda row: row.lost_db or 0).layer == "inner/after"
    said = str(found)
    assert "By layer, the worst first" in said
    assert said.index("inner/after") < said.index("\n relu")
    plain = json.loads(json.dumps(found.to_dict()))
    assert {row["layer"] for row in plain["layers"]} == set(rows)


def test_a_model_that_cannot_be_traced_is_refused(tmp_path):
    class Branches(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x, training=False):
            return self.dense(x)

    model = Branches()
    model(np.zeros((1, 4)))
    file = converters.convert(model, tmp_path / "m.tflite")
    with pytest.raises(ValueError, match="subclassed"):
        converters.verify(model, file, np.zeros((4, 4)), by_layer=True)
