"""Recurrent layers in int8 after training: their loops are written out step by step."""

import keras
import numpy as np
import pytest
from keras import layers

from tfcompress import converters
from tfcompress.converters import ConversionError
from tfcompress.converters.export.unrolled import STEPS, check_unrollable, loops, unrolled

X = np.random.default_rng(0).normal(size=(32, 6, 4)).astype("float32")


def net(*hidden, steps=6, name="talker"):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((steps, 4), name="x"), *hidden], name=name)


def test_loops_are_found_in_wrappers_and_nested_models():
    inner = net(layers.GRU(3, return_sequences=True, name="inner"), name="nested")
    both = layers.Bidirectional(layers.LSTM(2, return_sequences=True, name="both"))
    flat = layers.SimpleRNN(2, unroll=True, name="flat")
    found = loops(net(inner, both, flat))
    assert sorted(found.values()) == [6, 6, 6]
    assert "inner" in found and "flat" not in found
    assert sum("both" in name for name in found) == 2


def test_loops_are_unrolled_in_the_block_only():
    model = net(layers.LSTM(3, return_sequences=True), layers.GRU(2, unroll=True))
    with pytest.raises(KeyError), unrolled(model):
        assert [layer.unroll for layer in model.layers] == [True, True]
        raise KeyError
    assert [layer.unroll for layer in model.layers] == [False, True]


def test_free_lengths_and_long_loops_are_refused():
    assert check_unrollable(net(layers.GRU(2, name="gru")), "int8") == ("gru",)
    assert check_unrollable(net(layers.GRU(2, name="gru"), steps=STEPS), "int8") == ("gru",)
    long = net(layers.GRU(2, name="gru"), steps=STEPS + 1)
    with pytest.raises(ConversionError, match=r"'talker'.*'gru' \(65 steps\).*unroll = True"):
        check_unrollable(long, "int8")
    free = net(layers.GRU(2, name="gru"), steps=None)
    with pytest.raises(ConversionError, match=r"'gru' takes sequences of any length.*fixed"):
        check_unrollable(free, "int8")


def test_a_model_without_loops_needs_nothing():
    assert check_unrollable(net(layers.Dense(2)), "int8") == ()


def loops_of(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.RNN)]


@pytest.mark.slow("converts four nets of many ops")
@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.LSTM(8, name="memory"),
        lambda: layers.GRU(8, name="memory"),
        lambda: layers.GRU(8, reset_after=False, go_backwards=True, name="memory"),
        lambda: layers.Bidirectional(layers.LSTM(4), name="both"),
    ],
    ids=["lstm", "gru", "backwards", "both_ways"],
)
def test_loops_compute_in_integers(make, tmp_path):
    keras.utils.set_random_seed(0)  # Keras seeds the weights of a layer when it is made
    model = net(make(), layers.Dense(3, name="y"))
    with pytest.warns(UserWarning, match=r"no int8 form of a loop.*\(6 steps\).*DynamicInt8"):
        file = converters.convert(
            model, tmp_path / "m.tflite", converters.Int8(calibration=X), batch_size=1, strict=True
        )
    assert file.float_macs == file.float_casts == ()
    assert "WHILE" not in converters.inspect(file).ops
    assert all(not part.unroll for part in loops_of(model))
    # Eight bits, six roundings of a state in a row, and ranges with room for values that 32
    # samples do not show: 25.5 to 32 dB over three seeds, on these samples and on unseen ones.
    for delegate in ("xnnpack", "reference"):
        converters.verify(model, file, X, delegate=delegate).raise_if_above(snr_below=24)
