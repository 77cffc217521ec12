"""Models that the tests of low rank share."""

import keras
import numpy as np
from keras import layers

import tfcompress as tfc

RNG = np.random.default_rng(0)


def randomize(model):
    """Biases that are not zero."""
    for variable in model.variables:
        if variable.name == "bias":
            variable.assign(RNG.normal(size=variable.shape))


def single(layer, shape, dtype="float32"):
    x = keras.Input(shape, name="x", dtype=dtype)
    return keras.Model(x, layers.Activation("tanh", name="after")(layer(x)), name="net")


def check_costs(model, plan):
    total = tfc.summary(model).total
    assert (total.parameters, total.macs) == (plan.parameters_after, plan.macs_after)


# Layer, shape of a sample, axes of the kernel that are summed over.
def convnet():
    """A bit of everything, a nested model of free size among it."""
    x = image = keras.Input((13, 13, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2, activation="relu", name="stem")(x)
    x = layers.BatchNormalization(name="bn")(x)
    twice = layers.Conv2D(16, 3, padding="same", activation="relu", name="twice")
    x = twice(layers.Add(name="sum")([x, twice(x)]))
    inside = [layers.Conv2D(32, 3, strides=2, name="conv"), layers.ReLU(name="relu")]
    x = keras.Sequential([keras.Input((None, None, 16)), *inside], name="inner")(x)
    x = layers.DepthwiseConv2D(2, name="dw")(x)
    x = layers.Conv2D(32, 1, name="pointwise")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(24, activation="relu", name="hidden")(x)
    return keras.Model(image, layers.Dense(10, activation="softmax", name="classes")(x), name="net")


def one(layer, shape=(8, 16)):
    return single(layer, shape)
