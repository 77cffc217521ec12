import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfcompress as tfc


@pytest.mark.parametrize(("shape", "axis"), [((6, 4), -1), ((3, 3, 5, 4), -1), ((2, 2, 4, 3), -2)])
def test_the_formula(shape, axis):
    w = np.random.default_rng(0).normal(size=shape).astype("float32")
    channels = np.moveaxis(w.astype(np.float64), axis, 0).reshape(shape[axis], -1)
    expected = 0.3 * np.sqrt(channels.shape[1]) * np.linalg.norm(channels, axis=1).sum()
    # Sums of float32
    np.testing.assert_allclose(tfc.GroupLasso(0.3, axis)(w), expected, rtol=1e-5)


def test_the_gradient_is_finite_where_a_channel_is_zero():
    w = tf.Variable([[3.0, 0.0], [4.0, 0.0]])
    with tf.GradientTape() as tape:
        penalty = tfc.GroupLasso(1.0)(w)
    gradient = tape.gradient(penalty, w).numpy()
    # Of sqrt(2) * ||w||: sqrt(2) * w / ||w||
    np.testing.assert_allclose(gradient[:, 0], np.sqrt(2) * np.array([0.6, 0.8]), rtol=1e-5)
    np.testing.assert_array_equal(gradient[:, 1], 0)


@pytest.mark.slow("trains a net until channels are empty")
def test_it_empties_channels_which_then_go_for_nothing(tmp_path):
    """A layer wider than its task: most channels go, and cutting them changes little."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 8)).astype("float32")
    y = np.maximum(x @ rng.normal(size=(8, 3)), 0).astype("float32") @ rng.normal(size=(3, 1))
    errors = {}
    for strength in (0.0, 1e-2):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((8,)),
                layers.Dense(24, "relu", use_bias=False, name="wide"),
                layers.Dense(1),
            ]
        )
        tfc.regularize(model, tfc.GroupLasso(strength), "wide")
        model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
        model.fit(x, y, epochs=100, batch_size=64, verbose=0)
        small = tfc.prune_channels(model, 0.5)
        change = small.predict(x, verbose=0) - model.predict(x, verbose=0)
        errors[strength] = float(np.sqrt(np.mean(change**2)))
    assert errors[1e-2] < 0.1 * errors[0.0]
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    assert isinstance(again.get_layer("wide").kernel_regularizer, tfc.GroupLasso)
    assert again.get_layer("wide").kernel_regularizer.get_config() == {"strength": 1e-2, "axis": -1}


@pytest.mark.parametrize("wrong", [{"strength": -1}, {"strength": "1e-4"}, {"axis": "last"}])
def test_wrong_arguments(wrong):
    [(name, value)] = wrong.items()
    with pytest.raises((TypeError, ValueError), match=f"Received: {name}={value!r}"):
        tfc.GroupLasso(**wrong)
