"""Outputs keep their names: losses, metrics and the .tflite file go by them."""

import keras
import pytest
from keras import layers, ops

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


def operation(x):
    return ops.sigmoid(layers.Dense(4)(x))


def called_twice(x):
    layer = layers.Dense(8, name="twice")
    return layer(layer(x))


def operation_and_state(x):
    sequence, state = layers.GRU(3, return_sequences=True, return_state=True, name="gru")(
        ops.reshape(x, (-1, 2, 4))
    )
    return [ops.add(sequence, 1.0), state]


def unknown_layer(x):
    return layers.Multiply(name="product")([x, layers.Dense(8)(x)])


def floats_and_integers(x):
    return list(ops.top_k(layers.Dense(8)(x), 2))


@pytest.mark.parametrize(
    "make", [operation, called_twice, operation_and_state, unknown_layer, floats_and_integers]
)
def test_outputs_of_operations_and_shared_layers_keep_their_names(make, tmp_path):
    x = keras.Input((8,))
    model = keras.Model(x, make(x))
    qat = tfcompress.quantize_aware(model)
    assert qat.output_names == model.output_names
    qat.save(tmp_path / "qat.keras")
    loaded = keras.models.load_model(tmp_path / "qat.keras")
    assert loaded.output_names == model.output_names
    stripped = tfcompress.strip(loaded)
    assert stripped.output_names == model.output_names
    assert [layer.name for layer in stripped.layers] == [layer.name for layer in model.layers]


def test_a_layer_that_makes_two_outputs_names_both():
    x, layer = keras.Input((8,)), layers.Dense(8, name="twice")
    first = layer(x)
    qat = tfcompress.quantize_aware(keras.Model(x, [first, layer(first)]))
    # As `converters.convert` names them in the float file.
    assert qat.output_names == ["twice", "twice_1"]
