"""Scores of channels against NumPy, by the formulas of the papers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfcompress as tfc
from tfcompress import importance

# The same sums in float64, of weights in float32; gradients and activations are float32 themselves.
EXACT, FLOAT = 1e-9, 1e-4


@pytest.fixture
def model():
    """A residual of 6 channels, with normalization, flattened into a dense layer."""
    i = keras.Input((4, 4, 2), name="image")
    x = layers.Conv2D(6, 3, padding="same", name="a")(i)
    y = layers.Conv2D(5, 1, activation="relu", name="b")(x)
    y = layers.BatchNormalization(name="norm")(layers.Conv2D(6, 3, padding="same", name="c")(y))
    x = layers.ReLU(name="relu")(layers.Add()([x, y]))
    model = keras.Model(i, layers.Dense(3, activation="softmax", name="head")(layers.Flatten()(x)))
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.uniform(0.1, 0.4, variable.shape) * rng.choice([-1, 1], variable.shape))
    model.get_layer("norm").moving_variance.assign(np.ones(6))
    return model


@pytest.fixture
def data():
    rng = np.random.default_rng(1)
    return rng.normal(size=(10, 4, 4, 2)).astype("float32"), rng.integers(0, 3, 10)


def weight(model, name, kind="kernel"):
    return np.asarray(getattr(model.get_layer(name), kind), np.float64)


def kernels_of_the_residual(model):
    """Channel first: all weights of the kernels that make a channel of it, or read it."""
    head = weight(model, "head").reshape(16, 6, 3)
    return [
        np.moveaxis(weight(model, "a"), 3, 0),
        np.moveaxis(weight(model, "c"), 3, 0),
        np.moveaxis(weight(model, "b"), 2, 0),
        np.moveaxis(head, 1, 0),
    ]


def scored(model, score):
    groups = tfc.channel_groups(model).prunable
    assert [group.size for group in groups] == [6, 5]
    return score(model, groups)


@pytest.mark.parametrize(
    ("score", "power"), [(importance.l1_norm, np.abs), (importance.l2_norm, np.square)]
)
def test_norms(model, score, power):
    sums = [power(kernel).reshape(6, -1).sum(1) for kernel in kernels_of_the_residual(model)]
    found = scored(model, score)
    np.testing.assert_allclose(found[0], np.mean(sums, axis=0), rtol=EXACT)
    inner = [np.moveaxis(weight(model, "b"), 3, 0), np.moveaxis(weight(model, "c"), 2, 0)]
    expected = np.mean([power(kernel).reshape(5, -1).sum(1) for kernel in inner], axis=0)
    np.testing.assert_allclose(found[1], expected, rtol=EXACT)


def test_bn_scale(model):
    found = scored(model, importance.bn_scale)
    np.testing.assert_allclose(found[0], np.abs(weight(model, "norm", "gamma")), rtol=EXACT)
    # No normalization: the norm.
    np.testing.assert_allclose(found[1], scored(model, importance.l2_norm)[1], rtol=EXACT)


def test_taylor_is_the_change_of_the_loss_to_first_order(model, data):
    """Against central differences: all that makes a channel is scaled by 1 + h and 1 - h."""
    x, y = data
    loss = keras.losses.SparseCategoricalCrossentropy()
    h = 1e-2  # float32 leaves some 1e-5 of the loss

    def change(indices, names, batch):
        values = []
        for factor in (1 + h, 1 - h):
            old = {name: model.get_layer(name).get_weights() for name in names}
            for name in names:
                new = [np.array(w) for w in old[name]]
                for w in new[: 2 if name != "norm" else 4]:
                    w[..., indices] *= factor
                model.get_layer(name).set_weights(new)
            values.append(float(loss(y[batch], model(x[batch], training=False))))
            for name in names:
                model.get_layer(name).set_weights(old[name])
        return (values[0] - values[1]) / (2 * h)

    found = scored(model, importance.taylor(x, y, "sparse_categorical_crossentropy", batch_size=5))
    batches = [slice(0, 5), slice(5, 10)]
    expected = [np.mean([change([c], ["b"], b) ** 2 for b in batches]) for c in range(5)]
    np.testing.assert_allclose(found[1], expected, rtol=0.05, atol=1e-4)


def test_taylor_takes_the_loss_that_the_model_was_compiled_with(model, data):
    given = importance.taylor(*data, loss="sparse_categorical_crossentropy")
    expected = scored(model, given)
    with pytest.raises(ValueError, match="give `taylor` the loss"):
        scored(model, importance.taylor(*data))
    model.compile("sgd", "sparse_categorical_crossentropy")
    for one, other in zip(expected, scored(model, importance.taylor(*data)), strict=True):
        np.testing.assert_allclose(one, other, rtol=FLOAT)


class Subclassed(keras.Model):
    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def call(self, x):
        return self.inside(x)


class WithLoss(Subclassed):
    def compute_loss(self, *args, **kwargs):
        return 2 * super().compute_loss(*args, **kwargs)


def test_taylor_of_a_subclassed_model(model, data):
    """Its loss is known, unless the class computes it in its own way."""
    loss = "sparse_categorical_crossentropy"
    plain, own = Subclassed(model), WithLoss(model)
    for outer in (plain, own):
        outer(data[0])
        outer.compile("sgd", loss)
    small = tfc.prune_channels(plain, 0.5, importance=importance.taylor(*data))
    expected = tfc.prune_channels(model, 0.5, importance=importance.taylor(*data, loss=loss))
    for one, other in zip(small.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="give `taylor` the loss"):
        tfc.prune_channels(own, 0.5, importance=importance.taylor(*data))


def test_activations(model, data):
    between = keras.Model(model.input, [model.get_layer(n).output for n in ("a", "b", "relu")])
    a, b, relu = between.predict(data[0], verbose=0)
    # Where kernels read them: the convolution b reads a, the head reads relu; c reads b.
    means = importance.activation_mean(data[0], batch_size=3)
    shares = importance.activation_zeros(data[0], batch_size=3)
    for score, measure in ((means, np.abs), (shares, lambda t: t != 0)):
        found = scored(model, score)
        both = [measure(t).reshape(-1, 6).mean(0) for t in (a, relu)]
        np.testing.assert_allclose(found[0], np.mean(both, axis=0), rtol=FLOAT)
        np.testing.assert_allclose(found[1], measure(b).reshape(-1, 5).mean(0), rtol=FLOAT)


def test_activations_are_those_that_are_mixed():
    """Not those that a depthwise convolution makes the same channels of."""
    i = keras.Input((4, 4, 3))
    x = layers.Conv2D(5, 1, activation="relu")(i)
    x = layers.DepthwiseConv2D(3, activation="relu", name="depthwise")(x)
    model = keras.Model(i, layers.Conv2D(2, 1)(x))
    data = np.random.default_rng(0).normal(size=(8, 4, 4, 3)).astype("float32")
    before = keras.Model(i, model.get_layer("depthwise").output)(data).numpy().reshape(-1, 5)
    groups = tfc.channel_groups(model).prunable
    [found] = importance.activation_mean(data)(model, groups)
    np.testing.assert_allclose(found, before.mean(0), rtol=FLOAT)
    [found] = importance.activation_zeros(data)(model, groups)
    np.testing.assert_allclose(found, (before != 0).mean(0), rtol=FLOAT)


def test_activations_inside_nested_models_and_of_heads():
    inner = keras.Sequential([layers.Dense(6, "relu", name="one"), layers.Dense(4)], name="inner")
    i = keras.Input((3, 5))
    x = layers.MultiHeadAttention(2, 3)(y := inner(i), y)
    model = keras.Model(i, layers.Dense(2)(x))
    groups = tfc.channel_groups(model).prunable
    x = np.random.default_rng(0).normal(size=(4, 3, 5)).astype("float32")
    found = importance.activation_mean(x)(model, groups)
    hidden = inner.layers[0](x).numpy().reshape(-1, 6)
    by_name = dict(zip([g.producers[0] for g in groups], found, strict=True))
    np.testing.assert_allclose(by_name["inner/one"], np.abs(hidden).mean(0), rtol=FLOAT)
    [heads] = [i for i, g in enumerate(groups) if g.kind == "heads"]
    np.testing.assert_allclose(found[heads], importance.l2_norm(model, groups)[heads])


def test_dictionaries_are_read_by_name():
    a, b = keras.Input((3,), name="a"), keras.Input((4,), name="b")
    x = layers.Concatenate()([layers.Dense(5)(a), layers.Dense(6)(b)])
    model = keras.Model([b, a], layers.Dense(1)(x))
    groups = tfc.channel_groups(model).prunable
    rng = np.random.default_rng(0)
    data = {"a": rng.normal(size=(8, 3)), "b": 9 * rng.normal(size=(8, 4))}
    by_name = importance.activation_mean(data)(model, groups)
    in_order = importance.activation_mean([data["b"], data["a"]])(model, groups)
    for one, other in zip(by_name, in_order, strict=True):
        np.testing.assert_array_equal(one, other)


class Batches(keras.utils.PyDataset):
    """Batches of 4, as a user's own class gives them."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return -(-len(self.arrays[0]) // 4)

    def __getitem__(self, index):
        return tuple(array[4 * index : 4 * index + 4] for array in self.arrays)


@pytest.mark.parametrize("wrap", [lambda *arrays: slices(*arrays).batch(4), Batches])
@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", None])
def test_data_sets_as_for_fit(model, data, wrap, loss):
    """Give what arrays give, and are read anew for each cut; targets are not for activations."""
    x, y = data
    model.compile("sgd", "sparse_categorical_crossentropy")
    for given, arrays in (
        (importance.taylor(wrap(x, y), loss=loss), importance.taylor(x, y, loss, batch_size=4)),
        (importance.activation_mean(wrap(x, y)), importance.activation_mean(x)),
        (importance.activation_zeros(wrap(x)), importance.activation_zeros(x)),
    ):
        for _ in range(2):
            for one, other in zip(scored(model, given), scored(model, arrays), strict=True):
                np.testing.assert_allclose(one, other, rtol=FLOAT, atol=1e-9)


@pytest.mark.parametrize(
    "loss",
    ["sparse_categorical_crossentropy", keras.losses.SparseCategoricalCrossentropy(), None],
    ids=["name", "loss", "compiled"],
)
def test_weights_of_samples(model, data, loss):
    """A sample of weight 0 counts in the mean, and in nothing else."""
    x, y = data
    model.compile("sgd", "sparse_categorical_crossentropy")
    weights = np.array([1.0] * 5 + [0.0] * 5, "float32")
    whole = tf.data.Dataset.from_tensors((x, y, weights))
    half = importance.taylor(x[:5], y[:5], loss, batch_size=5)
    for one, other in zip(
        scored(model, importance.taylor(whole, loss=loss)), scored(model, half), strict=True
    ):
        np.testing.assert_allclose(one, other / 4, rtol=FLOAT, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x, y: importance.taylor(x, loss="mse"), "needs targets"),
        (lambda x, y: importance.taylor(x, np.ones(3), "mse"), "as many samples each"),
        (lambda x, y: importance.taylor(slices(x, y), y, "mse"), "Leave `y` out"),
        (lambda x, y: importance.activation_mean(slices(x, y)), "dataset.batch"),
        (lambda x, y: importance.activation_mean(slices(x, y).batch(2).repeat()), "take"),
        (lambda x, y: importance.activation_mean(slices(x, y).batch(2).take(0)), "is empty"),
        (lambda x, y: importance.activation_mean([x, x]), r"image \(None, 4, 4, 2\). Received"),
        (lambda x, y: importance.activation_mean([x, x[:2]]), "as many samples each"),
        (lambda x, y: importance.activation_mean(x[:0]), "`x` must be .* at least one"),
        (lambda x, y: importance.activation_zeros(x, batch_size=0), "batch_size=0"),
    ],
)
def test_data_that_cannot_be_used(model, data, make, message):
    with pytest.raises(ValueError, match=message):
        scored(model, make(*data))


def test_inputs_of_one_number():
    """Keras lets `fit` have them without their last axis."""
    i = keras.Input((1,))
    model = keras.Model(i, layers.Dense(1)(layers.Dense(3)(i)))
    groups = tfc.channel_groups(model).prunable
    x = np.arange(4.0)
    for make in (importance.activation_mean, lambda x: importance.taylor(x, np.ones(4), "mse")):
        [flat], [column] = make(x)(model, groups), make(x[:, None])(model, groups)
        np.testing.assert_array_equal(flat, column)


def slices(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays)


def test_random_goes_on_from_its_seed(model):
    one, other = importance.random(3), importance.random(3)
    first = scored(model, one)
    np.testing.assert_array_equal(first[0], scored(model, other)[0])
    assert (first[0] != scored(model, one)[0]).any()


def test_what_was_trained_away_goes_first(data):
    """Channels that nothing reads, or that are never on, score lowest by what sees them so."""
    i = keras.Input((4, 4, 2))
    x = layers.Conv2D(4, 1, activation="relu", name="a")(i)
    model = keras.Model(i, layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(x)))
    model.get_layer("a").bias.assign([0.0, 0.0, -100.0, 0.0])  # never on
    for score in (importance.activation_mean(data[0]), importance.activation_zeros(data[0])):
        assert np.argmin(score(model, tfc.channel_groups(model).prunable)[0]) == 2
    taylor = importance.taylor(*data, loss=keras.losses.SparseCategoricalCrossentropy(True))
    assert taylor(model, tfc.channel_groups(model).prunable)[0][2] == 0


@pytest.mark.parametrize(
    ("name", "options", "made"),
    [
        ("bn_scale", lambda x, y: {}, lambda x, y: importance.bn_scale),
        ("activation_mean", lambda x, y: {"data": x}, lambda x, y: importance.activation_mean(x)),
        (
            "activation_zeros",
            lambda x, y: {"data": (x, y)},  # It does not need the targets.
            lambda x, y: importance.activation_zeros(x),
        ),
        (
            "taylor",
            lambda x, y: {"data": (x, y), "loss": "sparse_categorical_crossentropy"},
            lambda x, y: importance.taylor(x, y, "sparse_categorical_crossentropy"),
        ),
    ],
)
def test_prune_channels_takes_a_name_for_the_function(model, data, name, options, made):
    by_name = tfc.prune_channels(model, 0.5, importance=name, **options(*data))
    by_function = tfc.prune_channels(model, 0.5, importance=made(*data))
    for one, other in zip(by_name.get_weights(), by_function.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_get_takes_a_data_set_with_targets(model, data):
    batches = tf.data.Dataset.from_tensor_slices(data).batch(5)
    by_name = importance.get("taylor", batches, "sparse_categorical_crossentropy")
    by_function = importance.taylor(*data, "sparse_categorical_crossentropy", batch_size=5)
    for one, other in zip(scored(model, by_name), scored(model, by_function), strict=True):
        np.testing.assert_allclose(one, other, rtol=EXACT)
