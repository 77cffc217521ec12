import keras
import numpy as np
import pytest
from keras import layers

from tfcompress import converters, edge

IDS = np.random.default_rng(0).integers(0, 90, (8, 6)).astype("int32")


@pytest.mark.parametrize("tied", [True, False])
def test_rows_keep_scales_of_their_own_and_tied_ones_are_stored_once(tied, tmp_path):
    keras.utils.set_random_seed(0)
    ids = keras.Input((6,), dtype="int32", name="ids")
    # Rows of uneven sizes: one scale for all would lose the small ones.
    uneven = np.exp(np.random.default_rng(1).normal(size=(90, 1)) * 2)
    table = layers.ReversibleEmbedding(90, 32, tie_weights=tied, name="table")
    x = layers.LayerNormalization()(table(ids))
    model = keras.Model(ids, table(x, reverse=True))
    table.embeddings.assign(np.random.default_rng(2).normal(size=(90, 32)) * uneven)
    file = converters.convert(
        model, tmp_path / "m.tflite", converters.DynamicInt8(), batch_size=1, samples=IDS
    )
    found = converters.inspect(file)
    tables = [t for t in found.constants if np.prod(t.shape) == 90 * 32]
    assert {t.dtype for t in tables} == {"int8"}
    assert len({t.buffer for t in tables}) == (1 if tied else 2)
    # Rows of 8 bits, with a scale each, and a product in 8 bits leave 40 dB.
    assert file.outputs[0].snr_db > 30
    for delegate in ("xnnpack", "reference"):
        error = edge.Runner(file, delegate=delegate)(IDS) - model.predict(IDS, verbose=0)
        assert np.square(error).mean() < 1e-3 * np.square(model.predict(IDS, verbose=0)).mean()
