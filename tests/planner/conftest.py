"""A small net that knows the handwritten digits, and the digits."""

import keras
import pytest
from keras import layers

from tfcompress.demo import load_digits


@pytest.fixture(scope="session")
def digits():
    """Training, validation and test data: `(x, y)` each."""
    data = load_digits()
    half = len(data.x_test) // 2
    x, y = data.x_test, data.y_test
    return (data.x_train, data.y_train), (x[:half], y[:half]), (x[half:], y[half:])


@pytest.fixture(scope="session")
def net(digits):
    """A net of two convolutions and two dense layers, 96% right."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, name="digit"),
        ],
        name="net",
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, jit_compile=False)
    model.fit(*digits[0], batch_size=64, epochs=8, verbose=0)
    return model
