import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfcompress as tfc
from tfcompress.quantization.fake_quant import fake_quants
from tfcompress.quantization.observers.base import (
    Observer,
    extremes,
    observer,
    observers,
    register_observer,
)

BATCHES = np.random.default_rng(0).normal(size=(4, 8, 6)).astype(np.float32)


@register_observer("three_sigma")
class ThreeSigma(Observer):
    """Three standard deviations of each batch, at most what was seen before."""

    def update(self, low, high, values, first):
        reach = 3.0 * tf.math.reduce_std(tf.cast(values, tf.float32))
        return tf.minimum(low, -reach), tf.maximum(high, reach)


def test_registry_names_the_built_in_observers():
    assert observers()[:3] == ("learned", "minmax", "moving_average")


def test_observer_of_an_unknown_name_is_rejected():
    with pytest.raises(ValueError, match=r"moving_average.*ranges='percentil'"):
        observer("percentil")
    with pytest.raises(ValueError, match=r"momentum=1\.0"):
        observer("moving_average", 1.0)


def test_register_observer_rejects_a_taken_name_and_other_classes():
    with pytest.raises(ValueError, match="'minmax'"):
        register_observer("minmax")(ThreeSigma)
    with pytest.raises(TypeError, match="subclass of Observer"):
        register_observer("other")(object)
    assert "other" not in observers()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_extremes_hold_zero(dtype):
    values = tf.constant([1.0, 2.5], dtype)
    assert [float(bound) for bound in extremes(values)] == [0.0, 2.5]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", ["learned", "minmax", "moving_average", "three_sigma"])
def test_observer_gives_the_same_in_a_graph(name, jit):
    update = observer(name, 0.9).update
    compiled = tf.function(update, jit_compile=jit)
    state = other = (tf.constant(0.0), tf.constant(0.0))
    for index, batch in enumerate(BATCHES):
        state = update(*state, tf.constant(batch), tf.constant(index == 0))
        other = compiled(*other, tf.constant(batch), tf.constant(index == 0))
    np.testing.assert_allclose(other, state, rtol=1e-6)


def test_registered_observer_serves_calibration_training_and_a_saved_model(tmp_path):
    x = keras.Input((6,), name="x")
    model = keras.Model(x, layers.Dense(3, name="head")(x))
    qat = tfc.quantize_aware(model, scheme=tfc.QuantizationScheme(ranges="three_sigma"))
    tfc.calibrate(qat, BATCHES[0])
    reach = 3 * BATCHES[0].std()
    found = qat.get_layer("fake_quant_x").range()
    np.testing.assert_allclose(found, (-reach, reach), rtol=1e-5)

    qat.compile("sgd", "mse", jit_compile=False)
    qat.fit(4 * BATCHES[1], np.zeros((8, 3)), batch_size=8, verbose=0)
    reach = 3 * (4 * BATCHES[1]).std()
    found = qat.get_layer("fake_quant_x").range()
    np.testing.assert_allclose(found, (-reach, reach), rtol=1e-5)
    qat.save(tmp_path / "qat.keras")
    again = keras.models.load_model(tmp_path / "qat.keras")
    assert {layer.ranges for layer in fake_quants(again)} == {"three_sigma"}
