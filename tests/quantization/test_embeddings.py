import keras
import numpy as np
from keras import layers

import tfcompress as tfc
from tfcompress import converters

TOKENS = np.random.default_rng(0).integers(0, 20, (16, 4)).astype("int32")


def model(tied):
    tokens = keras.Input((4,), dtype="int32", name="tokens")
    table = layers.ReversibleEmbedding(20, 8, name="table")
    x = layers.Dense(8, name="dense")(table(tokens))
    return keras.Model(tokens, table(x, reverse=True) if tied else layers.Dense(2, name="head")(x))


def test_a_table_that_is_only_looked_up_is_int8(tmp_path):
    qat = tfc.calibrate(tfc.quantize_aware(model(tied=False)), TOKENS)
    file = converters.convert(qat, tmp_path / "m.tflite", converters.Int8(), strict=True)
    converters.verify(qat, file, TOKENS).raise_if_above(lsb=1)
    assert not tfc.qat_report(qat).floating
    [table] = [t for t in converters.inspect(file).tensors if t.shape == (20, 8)]
    assert table.dtype == "int8"


def test_a_table_that_gives_logits_stays():
    reported = {la.path: la.type for la in tfc.qat_report(tfc.quantize_aware(model(True))).layers}
    assert reported["table"] == "ReversibleEmbedding"


def test_it_is_selected_as_the_layer_that_it_stands_for():
    source = model(tied=False)
    qat = tfc.quantize_aware(source, exclude=[source.get_layer("table")])
    assert [layer.path for layer in tfc.qat_report(qat).floating] == ["table"]
