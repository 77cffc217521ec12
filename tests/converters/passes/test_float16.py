"""Weights in float16, but for those that float16 does not hold."""

import keras
import numpy as np
from keras import layers

from tfcompress import converters
from tfcompress.converters.passes.float16 import fits


def test_fits_tells_what_float16_loses():
    kernel = np.random.default_rng(0).normal(size=(8, 8)).astype("float32")
    kernel[0] = 1e-12  # a dead unit may die
    assert fits(kernel)
    assert not fits(kernel * np.float32(1e-9))
    assert not fits(kernel * np.float32(1e5))
    assert fits(np.float32([65504.0, -1.0, 0.0]))
    assert not fits(np.float32([65600.0, 1.0]))
    # An element of a vector stands for a feature of any size.
    assert not fits(np.float32([1.0, 1e-9]))
    assert fits(np.float32(0.1))


def test_float16_keeps_what_it_cannot_hold_in_float32(tmp_path):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal([20, 101325], [8, 900], (64, 2)).astype("float32")
    norm = layers.Normalization(name="norm")
    norm.adapt(x)
    model = keras.Sequential(
        [
            keras.Input((2,)),
            norm,
            layers.Dense(16, activation="relu", name="hidden"),
            layers.LayerNormalization(epsilon=1e-12),
            layers.Dense(1, name="last"),
        ]
    )
    hidden = model.get_layer("hidden")
    hidden.kernel.assign(hidden.kernel * 1e-3)
    file = converters.convert(model, tmp_path / "m.tflite", converters.Float16())
    types = {c.dtype: [] for c in converters.inspect(file).constants}
    for constant in converters.inspect(file).constants:
        types[constant.dtype].append(constant.name)
    assert sum("hidden" in name or "last" in name for name in types["float16"]) == 2
    assert len(types["float32"]) == 2  # the mean of the pressure, and 1e-12
    # Rounded by 2^-12 relative on average, in four layers; with the converter's float16: NaN.
    converters.verify(model, file, x).raise_if_above(snr_below=60)
