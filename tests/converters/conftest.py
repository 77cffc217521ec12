from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from tfcompress import converters


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(0).normal(size=(40, 12, 12, 3)).astype("float32")


@pytest.fixture(scope="session")
def model():
    """Both kernels hold over 1024 elements: smaller ones stay float in a dynamic-range file."""
    keras.utils.set_random_seed(1)
    image = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(40, 3, strides=2, activation="relu", name="conv")(image)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    scores = layers.Dense(30, name="scores")(x)
    return keras.Model(image, scores, name="small")


@pytest.fixture(scope="session")
def files(model, images, tmp_path_factory):
    """One file per precision, all by one child process."""
    folder = tmp_path_factory.mktemp("files")
    wanted = {
        folder / "float32.tflite": converters.Float32(),
        folder / "float16.tflite": converters.Float16(),
        folder / "dynamic.tflite": converters.DynamicInt8(),
        folder / "int8.tflite": converters.Int8(calibration=images),
        folder / "int8_io.tflite": converters.Int8(calibration=images, io="int8"),
        folder / "uint8_io.tflite": converters.Int8(calibration=images, io="uint8"),
    }
    return {Path(file).stem: file for file in converters.convert_all(model, wanted, strict=True)}
