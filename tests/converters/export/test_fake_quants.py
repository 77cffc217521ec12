"""After quantization-aware training, bounds, squares and negations are int8, as trained."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfcompress as tfc
from tfcompress import converters

X = np.random.default_rng(0).normal(size=(32, 6, 6, 3)).astype("float32")


@pytest.fixture(scope="module")
def trained():
    """Each op between layers that are int8, and at the end; a square that is read twice."""
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 6, 3), name="x")
    y = layers.Conv2D(4, 3)(x)
    transposed = layers.ReLU(max_value=1.0)(layers.Conv2DTranspose(2, 3)(y))
    square = ops.square(y)
    bounded = layers.ReLU(max_value=0.3)(y)
    outputs = {
        "between": layers.Conv2D(3, 1)(bounded),
        "end": layers.ReLU(max_value=0.4)(layers.Conv2D(3, 1)(x)),
        "transposed": layers.Conv2D(3, 1)(transposed),
        "square": layers.Conv2D(3, 1)(square + y),
        "negative": layers.Conv2D(3, 1)(-layers.Conv2D(4, 1)(x)),
        "power": layers.Conv2D(3, 1)(layers.Conv2D(4, 1)(x) ** 2),
        "row": layers.Conv1DTranspose(2, 3, strides=2, activation="relu")(x[:, 0]),
    }
    qat = tfc.quantize_aware(keras.Model(x, outputs))
    tfc.calibrate(qat, X, batch_size=32)
    return qat


def test_the_file_computes_what_was_trained(trained, tmp_path):
    file = converters.convert(trained, tmp_path / "m.tflite", converters.Int8(), batch_size=32)
    assert file.float_macs == file.float_casts == ()
    used = converters.inspect(file).ops
    assert not {"SQUARE", "POW", "NEG", "MINIMUM", "MAXIMUM"} & set(used)
    for delegate in ("xnnpack", "reference"):
        # A value in the middle between two steps may round the other way, one op after another.
        found = converters.verify(trained, file, X, delegate=delegate).outputs
        assert len(found) == 7
        for output in found:
            seen = (output.name, delegate, output.max_lsb, output.mean_lsb)
            assert output.max_lsb <= 2.01 and output.mean_lsb < 0.1, seen


def test_a_bound_below_the_end_of_its_range_stays(tmp_path):
    """A concatenation gives its range to an input that ends before it."""
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 6, 3), name="x")
    bounded = layers.ReLU(max_value=0.3)(layers.Conv2D(4, 3)(x))
    wide = layers.Concatenate()([bounded, layers.Conv2D(4, 3)(x)])
    qat = tfc.quantize_aware(keras.Model(x, layers.Conv2D(2, 1)(wide)))
    tfc.calibrate(qat, X, batch_size=32)
    file = converters.convert(qat, tmp_path / "m.tflite", converters.Int8(), batch_size=32)
    for delegate in ("xnnpack", "reference"):
        converters.verify(qat, file, X, delegate=delegate).raise_if_above(lsb=2.01, mean_lsb=0.1)
