import keras
import numpy as np
import pytest
from keras import ops

import tfcompress as tfc
from tfcompress import converters


@pytest.mark.parametrize(
    ("shift", "axis"), [((-1, 2), (1, 2)), (7, -2), (4, 1), ((1, 2), (2, 2)), (1, None)]
)
def test_rolls_are_slices_that_are_joined_in_another_order(shift, axis, tmp_path):
    inputs = keras.Input((4, 6, 2), batch_size=2)
    model = keras.Model(inputs, ops.roll(inputs, shift, axis))
    x = np.random.default_rng(0).normal(size=(4, 4, 6, 2)).astype("float32")
    file = converters.convert(model, tmp_path / "rolled.tflite")
    converters.verify(model, file, x).raise_if_above(max_error=0)


def test_what_is_rolled_stays_int8(tmp_path):
    inputs = keras.Input((4, 6, 2))
    x = ops.roll(keras.layers.Conv2D(3, 1)(inputs), (-1, 2), (1, 2))
    model = tfc.quantize_aware(keras.Model(inputs, keras.layers.Conv2D(2, 1)(x)))
    samples = np.random.default_rng(0).normal(size=(8, 4, 6, 2)).astype("float32")
    tfc.calibrate(model, samples)
    file = converters.convert(model, tmp_path / "int8.tflite", converters.Int8(), strict=True)
    converters.verify(model, file, samples).raise_if_above(lsb=1)
