import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from tests.support.helpers import need
from tfcompress import converters

TOKENS = np.random.default_rng(0).integers(0, 20, (16, 4)).astype("int32")


def model(length=4, start=0):
    try:
        import keras_hub
    except ImportError:
        need(False, "pip install -c constraints.txt -e '.[test]' brings keras-hub")
    tokens = keras.Input((length,), dtype="int32", name="tokens")
    x = layers.Embedding(20, 8, name="table")(tokens)
    places = keras_hub.layers.PositionEmbedding(6, "uniform", name="places")
    x = layers.Dense(3, name="head")(layers.Add(name="sum")([x, places(x, start_index=start)]))
    return keras.Model(tokens, x)


@pytest.mark.slow("two int8 files of an encoder")
def test_positions_are_int8_in_any_batch(tmp_path):
    source = model()
    qat = tfc.calibrate(tfc.quantize_aware(source), TOKENS)
    assert not tfc.qat_report(qat).floating
    np.testing.assert_array_equal(tfc.strip(qat)(TOKENS), source(TOKENS))
    for batch in (None, 2):
        file = converters.convert(
            qat, tmp_path / "m.tflite", converters.Int8(), batch_size=batch, strict=True
        )
        converters.verify(qat, file, TOKENS).raise_if_above(lsb=1.01)


@pytest.mark.parametrize("options", [{"length": None}, {"start": 2}])
def test_positions_that_are_not_known_stay(options):
    reported = {
        la.path: la.type for la in tfc.qat_report(tfc.quantize_aware(model(**options))).layers
    }
    assert reported["places"] == "PositionEmbedding"


def test_they_are_selected_as_the_layer_that_they_stand_for():
    source = model()
    qat = tfc.quantize_aware(source, exclude=[source.get_layer("places")])
    kept = [layer.path for layer in tfc.qat_report(qat).floating]
    assert kept == ["places_embeddings", "places"]
