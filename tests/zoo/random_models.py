"""Random functional models from a seed, of the layers that small nets on devices are made of.

Several graphs become the branches of one model, each with its own input and output, because a
conversion costs the same for one graph as for twenty.
"""

import keras
import numpy as np
from keras import layers

ACTIVATIONS = ("relu", "relu6", "sigmoid", "tanh", "silu", "leaky_relu", "hard_sigmoid", "linear")


class RandomGraph:
    """A chain of random layers with residual connections, parallel branches and gates."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.name = f"graph_{seed}"
        self.count = 0
        keras.utils.set_random_seed(seed)
        build = self.pick(self.image, self.image, self.sequence, self.vector)
        self.input, features = build()
        # A layer of its own, so that the output has the name of the graph.
        self.output = self.dense(features, 3, self.pick(None, None, "softmax", "sigmoid"), end=True)

    def pick(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def within(self, low, high):
        return int(self.rng.integers(low, high + 1))

    def make(self, kind, *args, **options):
        self.count += 1
        return kind(*args, name=f"{self.name}_{self.count}", **options)

    def image(self):
        start = keras.Input((8, 8, self.within(1, 4)), name=f"{self.name}_in")
        steps = (self.conv, self.depthwise, self.separable, self.residual, self.branches)
        x = self.conv(start)
        for _ in range(self.within(1, 2)):
            x = self.pick(*steps, self.gate, self.pool, self.norm, self.activation)(x)
        return start, self.pick(self.flat, self.mean, self.mean, self.largest)(x)

    def sequence(self):
        start = keras.Input((12, self.within(1, 4)), name=f"{self.name}_in")
        x = self.conv1d(start)
        for _ in range(self.within(1, 2)):
            x = self.pick(self.conv1d, self.wide, self.residual, self.norm, self.activation)(x)
        kind = self.pick(layers.GlobalAveragePooling1D, layers.Flatten)
        return start, self.make(kind)(x)

    def vector(self):
        start = keras.Input((self.within(3, 12),), name=f"{self.name}_in")
        x = self.wide(start)
        for _ in range(self.within(1, 2)):
            x = self.pick(self.wide, self.residual, self.branches, self.norm, self.activation)(x)
        return start, x

    def mixing(self, x):
        """A layer that mixes channels, of the rank of its input."""
        return {2: self.wide, 3: self.conv1d, 4: self.conv}[len(x.shape)]

    def conv(self, x, filters=None):
        size = self.pick(1, 3)
        return self.make(
            layers.Conv2D,
            filters or self.within(2, 8),
            size,
            padding="same",
            activation=self.pick(*ACTIVATIONS),
            use_bias=self.pick(True, True, False),
        )(x)

    def conv1d(self, x, filters=None):
        return self.make(
            layers.Conv1D,
            filters or self.within(2, 8),
            3,
            padding="same",
            activation=self.pick(*ACTIVATIONS),
        )(x)

    def wide(self, x, units=None):
        return self.dense(x, units or self.within(3, 10), self.pick(*ACTIVATIONS))

    def dense(self, x, units, activation, end=False):
        if end:
            return layers.Dense(units, activation, name=self.name)(x)
        return self.make(layers.Dense, units, activation)(x)

    def depthwise(self, x):
        padding = self.pick("same", "valid") if x.shape[1] > 2 else "same"
        y = self.make(layers.DepthwiseConv2D, 3, padding=padding, use_bias=False)(x)
        return self.activation(self.make(layers.BatchNormalization)(y))

    def separable(self, x):
        return self.make(
            layers.SeparableConv2D, self.within(2, 8), 3, padding="same", activation="relu"
        )(x)

    def residual(self, x):
        channels = x.shape[-1]
        y = self.mixing(x)(self.mixing(x)(x), channels)
        return self.make(self.pick(layers.Add, layers.Add, layers.Multiply))([x, y])

    def branches(self, x):
        pair = [self.mixing(x)(x), self.pick(self.mixing(x), self.activation)(x)]
        return self.make(layers.Concatenate)(pair)

    def gate(self, x):
        """Squeeze and excitation."""
        channels = x.shape[-1]
        y = self.dense(self.mean(x), self.within(1, 4), "relu")
        y = self.dense(y, channels, self.pick("sigmoid", "hard_sigmoid"))
        return self.make(layers.Multiply)([x, self.make(layers.Reshape, (1, 1, channels))(y)])

    def pool(self, x):
        # The mean of four steps often lies in the middle between two, where XNNPACK and TFLite's
        # reference kernels round differently, so that no model can agree with both; that of nine
        # never does.
        kind, size = self.pick((layers.MaxPooling2D, 2), (layers.AveragePooling2D, 3))
        if min(x.shape[1:3]) < size:
            return self.activation(x)
        return self.make(kind, size, strides=2)(x)

    def norm(self, x):
        return self.make(layers.BatchNormalization)(self.mixing(x)(x))

    def activation(self, x):
        return self.make(layers.Activation, self.pick(*ACTIVATIONS[:-1]))(x)

    def flat(self, x):
        return self.make(layers.Flatten)(x)

    def mean(self, x):
        return self.make(layers.GlobalAveragePooling2D)(x)

    def largest(self, x):
        return self.make(layers.GlobalMaxPooling2D)(x)


def random_model(seeds):
    """A model with a graph for each seed, and statistics and biases that are not all alike."""
    graphs = [RandomGraph(seed) for seed in seeds]
    model = keras.Model([g.input for g in graphs], [g.output for g in graphs], name="random")
    rng = np.random.default_rng(seeds[0])
    for variable in model.variables:
        if any(part in variable.name for part in ("mean", "beta", "bias")):
            variable.assign(rng.normal(0, 0.2, variable.shape))
        elif any(part in variable.name for part in ("variance", "gamma")):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def random_samples(model, count, seed=0):
    """Inputs by name. Samples differ in their means, too, so that pooling leaves a difference."""
    rng = np.random.default_rng(seed)
    found = {}
    for x in model.inputs:
        shape = (count, *x.shape[1:])
        means = rng.normal(size=(count, *[1] * (len(shape) - 2), shape[-1]))
        found[x.name] = (means + 0.5 * rng.normal(size=shape)).astype("float32")
    return found
