"""Outputs keep their names: losses, metrics and the .tflite file go by them."""

import keras
import pytest
from keras import layers

import tfcompress


@pytest.fixture
def model():
    """Ends in a layer of its own, in a batch normalization with ReLU, and in a mere reshaping."""
    x = keras.Input((8, 8, 3), name="image")
    y = layers.Conv2D(3, 3, use_bias=False, name="conv")(x)
    y = layers.BatchNormalization(name="norm")(y)
    y = layers.ReLU(name="map")(y)
    flat = layers.Flatten(name="flat")(y)
    return keras.Model(x, [y, flat, layers.Dense(2, activation="softmax", name="classes")(flat)])


@pytest.mark.parametrize(
    "options",
    [{}, {"float_last": True}, {"exclude": ["conv"]}, {"filters": "conv"}],
    ids=lambda options: next(iter(options), "all"),
)
def test_outputs_keep_their_names(model, options, tmp_path):
    qat = tfcompress.quantize_aware(model, **options)
    assert qat.output_names == ["map", "flat", "classes"]
    qat.save(tmp_path / "qat.keras")
    assert keras.models.load_model(tmp_path / "qat.keras").output_names == qat.output_names
    assert tfcompress.strip(qat).output_names == qat.output_names


def test_what_a_layer_gives_can_be_looked_at(model):
    qat = tfcompress.quantize_aware(model)
    for made in (qat, tfcompress.strip(qat)):
        for layer in made.layers:
            assert keras.Model(made.inputs, layer.output).output is layer.output
