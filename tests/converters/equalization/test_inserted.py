import keras
import numpy as np
from keras import layers

import tfcompress as tfc
from tests.quantization.test_residual_sums import WIDTH, X, transformer
from tfcompress.converters.equalization.inserted import is_inserted, with_scales


def inserted(model):
    return {layer.name for layer in model.layers if is_inserted(layer)}


def test_scales_stand_before_sums_and_after_normalizations():
    model = transformer(layers.LayerNormalization, first=False)
    before = {f"attention_{i}_even" for i in range(2)} | {f"narrow_{i}_even" for i in range(2)}
    after = {"norm_0_even", "norm_0_1_even", "norm_1_even"}  # the head reads the last alone
    found = with_scales(model)
    assert inserted(found) == before | after
    np.testing.assert_array_equal(found(X), model(X))
    assert inserted(with_scales(transformer(layers.RMSNormalization, first=True))) == before


def test_a_model_without_such_places_stays():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(layers.LayerNormalization()(inputs)))
    assert with_scales(model) is model


def test_equalize_fills_the_ranges_around_sums(tmp_path):
    model = transformer(layers.LayerNormalization, first=False)
    [kept] = [c for c in tfc.equalization_plan(model, X).kept if "narrow_0" in c.producers]
    assert "a normalization sees all of it" in kept.why_kept
    plan = tfc.equalization_plan(model, X, alpha=1.0, insert_scales=True)
    made = {c.producers: c for c in plan.equalized}
    assert made["narrow_0",].before > 20
    assert made["narrow_0",].after < 1.01
    even = tfc.equalize(model, X, alpha=1.0, insert_scales=True)
    # float32 in another order, 3e-5 of values of about 3: the factors differ by 20.
    np.testing.assert_allclose(even(X), model(X), atol=1e-4)
    assert np.ptp(np.abs(even.get_layer("narrow_0_even").gamma)) > 0
    even.save(tmp_path / "even.keras")
    again = keras.models.load_model(tmp_path / "even.keras")
    np.testing.assert_array_equal(again(X), even(X))


def test_scales_that_stay_one_are_left_out():
    model = transformer(layers.LayerNormalization, first=False)
    even = tfc.equalize(model, X, filters=["narrow_0"], insert_scales=True)
    assert inserted(even) == {"narrow_0_even"}
    assert even.get_layer("narrow_0_even").gamma.shape == (WIDTH,)
