import keras
import numpy as np
import pytest
from keras import layers

import tfcompress
from tfcompress.model.checks import check_built, check_finite, check_finite_array
from tfcompress.model.errors import ModelError


def built():
    return keras.Sequential([keras.Input((4,)), layers.Dense(2, name="head")], name="net")


def test_check_built_returns_the_model():
    model = built()
    assert check_built(model) is model


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("model.keras", TypeError, "Received: 'model.keras' of type str.*load_model"),
        (keras.Sequential([layers.Dense(2)], name="net"), ModelError, "'net' is not built"),
    ],
)
def test_check_built_rejects_what_has_no_weights(model, error, message):
    with pytest.raises(error, match=message):
        check_built(model)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_check_finite_names_the_first_broken_weight(value):
    model = built()
    check_finite(model)
    kernel = model.layers[0].kernel.numpy()
    kernel[1] = value
    model.layers[0].kernel.assign(kernel)
    with pytest.raises(ModelError, match=r"'.*head/kernel' of model 'net' holds 2 NaN.* of 8"):
        check_finite(model)


def test_check_finite_array_passes_extremes():
    check_finite_array("x", np.array([np.finfo(np.float32).max, -0.0], np.float32))
    check_finite_array("x", np.array([], np.float32))


def test_methods_say_that_a_model_is_of_keras_2():
    """Callbacks, too, which Keras 2 hands its model to."""
    model = type("Sequential", (), {"__module__": "tf_keras.src.engine.sequential"})()
    keeping = tfcompress.KeepZeros()
    keeping.set_model(model)
    for call in (
        keeping.on_train_begin,
        lambda: tfcompress.calibrate(model, np.zeros((1, 2))),
        lambda: tfcompress.prune_weights(model, 0.5),
    ):
        with pytest.raises(TypeError, match="Keras 2 model"):
            call()
