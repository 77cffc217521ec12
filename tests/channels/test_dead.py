"""Dead units: cut without a change of any output, and only those."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfcompress as tfc

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(8, 9, 9, 3)).astype("float32")
# Products of float32 are summed in another order.
FLOAT = {"rtol": 1e-5, "atol": 1e-6}


def randomize(model):
    for variable in model.variables:
        low, high = (0.5, 1.5) if "variance" in variable.name else (-1.0, 1.0)
        variable.assign(RNG.uniform(low, high, variable.shape))
    return model


def mobile(padding="same", bias=False):
    """A stem, a separable block, a residual block and a head."""
    x = keras.Input((9, 9, 3))
    y = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(x)
    y = layers.ReLU(6.0)(layers.BatchNormalization(name="stem_bn")(y))
    y = layers.DepthwiseConv2D(3, padding=padding, use_bias=False, name="depthwise")(y)
    y = layers.ReLU(6.0)(layers.BatchNormalization(name="depthwise_bn")(y))
    y = layers.Conv2D(6, 1, use_bias=bias, name="pointwise")(y)
    y = layers.ReLU()(layers.BatchNormalization(name="pointwise_bn")(y))
    z = layers.Conv2D(10, 3, padding="same", activation="relu", name="inside")(y)
    y = layers.Add()([y, layers.Conv2D(6, 3, padding="same", name="back")(z)])
    y = layers.Dense(12, "relu", name="wide")(layers.GlobalAveragePooling2D()(y))
    return randomize(keras.Model(x, layers.Dense(4, name="head")(y)))


def scale(model, name, index, factor=0.0):
    """Multiply a part of a layer's kernel."""
    kernel = model.get_layer(name).kernel
    array = kernel.numpy()
    array[index] *= factor
    kernel.assign(array)


def sizes(model, *names):
    def size(layer):
        return getattr(layer, "filters", None) or layer.units

    return [size(model.get_layer(name)) for name in names]


def check_same(small, model, x=IMAGES):
    for new, old in zip(keras.tree.flatten(small(x)), keras.tree.flatten(model(x)), strict=True):
        np.testing.assert_allclose(new, old, **FLOAT)


@pytest.mark.parametrize("factor", [0.0, 1e-12])
def test_units_that_nothing_reads_go(factor):
    model = mobile()
    scale(model, "pointwise", np.s_[..., [0, 3], :], factor)
    scale(model, "back", np.s_[..., 2:9, :], factor)
    scale(model, "head", np.s_[[5], :], factor)
    small = tfc.prune_channels(model, dead=True)
    assert sizes(small, "stem", "inside", "wide") == [6, 3, 11]
    check_same(small, model)


class OldConv(layers.Conv2D):
    """Takes an argument that Keras does not know, and computes what its base does."""

    def __init__(self, *args, groups_per_filter=1, **kwargs):
        super().__init__(*args, **kwargs)


def test_a_subclass_with_the_call_of_its_base_is_cut_as_its_base():
    x = keras.Input((9, 9, 3))
    y = OldConv(6, 1, activation="relu", name="first")(x)
    model = randomize(keras.Model(x, OldConv(4, 1, name="second")(y)))
    scale(model, "first", (..., 2))  # a constant unit, which the bias of the second takes over
    small = tfc.prune_channels(model, dead=True)
    assert sizes(small, "first") == [5]
    check_same(small, model)


def test_what_only_dead_units_read_is_dead_too():
    """In either order of the layers, though no weight of it is zero."""
    model = mobile()
    scale(model, "head", np.s_[2:, :])
    scale(model, "wide", np.s_[[1], :2])  # read by the dead units alone
    small = tfc.prune_channels(model, dead=True)
    assert sizes(small, "wide") == [2]
    check_same(small, model)
    # A channel of the residual goes only where its other readers do not see it.
    assert sizes(small, "pointwise") == [6]
    scale(model, "inside", np.s_[..., 1, :])
    small = tfc.prune_channels(model, dead=True)
    assert sizes(small, "pointwise", "back", "wide") == [5, 5, 2]
    check_same(small, model)


def test_small_weights_of_a_small_output_are_alive():
    """An output of another unit of measure, such as 1e-9 of the first."""
    model = randomize(keras.Sequential([keras.Input((4,)), layers.Dense(5), layers.Dense(2)]))
    head = model.layers[1].kernel
    head.assign(head.numpy() * [[0.0, 1.0]] + [[1.0, 0.0]] * np.eye(5, 1))
    head.assign(head.numpy() * [1.0, 1e-9])
    with pytest.warns(UserWarning, match="No unit of .* is dead"):
        small = tfc.prune_channels(model, dead=True)
    assert small.layers[1].units == 5


def test_biases_take_over_what_is_constant():
    """No weight makes the unit, so that its bias or normalization alone does."""
    model = mobile(padding="valid", bias=True)
    scale(model, "stem", np.s_[..., [1, 4]])
    scale(model, "wide", np.s_[:, [0, 2, 7]])
    small = tfc.prune_channels(model, dead=True)
    assert sizes(small, "stem", "inside", "wide") == [6, 10, 9]
    check_same(small, model)
    changed = small.get_layer("pointwise").bias.numpy() != model.get_layer("pointwise").bias.numpy()
    assert changed.any()


@pytest.mark.parametrize(
    ("padding", "bias", "beta", "left"),
    [
        ("valid", True, 0.5, 7),
        ("same", True, 0.5, 8),  # the border sees fewer of the constants
        ("same", True, -0.5, 7),  # ReLU makes it zero, which padding is, too
        ("valid", False, 0.5, 8),  # no bias to take it over
    ],
)
def test_a_constant_goes_only_where_that_is_exact(padding, bias, beta, left):
    model = mobile(padding, bias)
    scale(model, "stem", np.s_[..., [1]])
    for name in ("stem_bn", "depthwise_bn"):
        norm = model.get_layer(name)
        norm.moving_mean.assign(np.zeros(8))
        norm.beta.assign(np.full(8, beta if name == "stem_bn" else abs(beta)))
        norm.gamma.assign(np.ones(8))
    if beta < 0:  # what follows a zero must not make a constant of it
        model.get_layer("depthwise_bn").beta.assign(np.full(8, -0.1))
    small = tfc.prune_channels(model, dead=True) if left == 7 else None
    if small is None:
        with pytest.warns(UserWarning, match="is dead"):
            small = tfc.prune_channels(model, dead=True)
    assert sizes(small, "stem") == [left]
    check_same(small, model)


def recurrent(x):
    return layers.LSTM(6, name="made")(x)


def twice(x):
    """One layer reads two constants, which differ."""
    shared = layers.Dense(3)
    made = layers.Dense(6, "relu", name="made")(x)
    return layers.Add()([shared(made), shared(layers.Activation("sigmoid")(made))])[:, 0]


def inside_and_outside(x):
    """A layer of a nested model, which the outer model calls, too."""
    shared = layers.Dense(3)
    start = keras.Input((5, 6))
    inner = keras.Model(start, shared(start))
    made = layers.Dense(6, "relu", name="made")(x)
    return layers.Add()([inner(made), shared(layers.Activation("sigmoid")(made))])[:, 0]


def products(x):
    """A product of two tensors reads units without a weight."""
    made = layers.Dense(6, name="made")(x)
    return (
        ops.mean(ops.matmul(made, ops.transpose(made, (0, 2, 1))), -1)
        + ops.mean(
            layers.Dense(5, use_bias=False, kernel_initializer="zeros")(made),
            (1, 2),
            keepdims=False,
        )[:, None]
    )


def normalized(x):
    return layers.LayerNormalization()(layers.Dense(6, name="made")(x))[:, 0]


@pytest.mark.parametrize("build", [recurrent, twice, inside_and_outside, products, normalized])
def test_where_it_cannot_be_told_nothing_changes(build):
    x = keras.Input((5, 4))
    model = randomize(keras.Model(x, layers.Dense(2, name="head")(build(x))))
    made = model.get_layer("made")
    weights = [w.numpy() for w in made.weights]
    for array in weights:
        array[..., 1] = 0.5 if array.ndim == 1 else 0
    made.set_weights(weights)
    data = RNG.normal(size=(8, 5, 4)).astype("float32")
    with pytest.warns(UserWarning, match="is dead"):
        small = tfc.prune_channels(model, dead=True)
    assert small.get_layer("made").units == 6
    check_same(small, model, data)


def test_dead_units_of_nested_models_and_rounding():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8, "relu", name="a"), layers.Dense(4, name="b")], name="in"
    )
    x = keras.Input((4,))
    model = randomize(keras.Model(x, layers.Dense(3, name="c")(inner(inner(x)))))
    kernel = inner.get_layer("b").kernel.numpy()
    kernel[2:5] = 0
    inner.get_layer("b").kernel.assign(kernel)
    data = RNG.normal(size=(8, 4)).astype("float32")
    for round_to, left in ((1, 5), (2, 6)):
        small = tfc.prune_channels(model, dead=True, round_to=round_to)
        assert small.get_layer("in").get_layer("a").units == left
        check_same(small, model, data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "amount=None, dead=False"),
        ({"amount": 0.5, "dead": True}, "amount=0.5, dead=True"),
        ({"dead": True, "scope": "global"}, "does not go with `scope`"),
        ({"dead": True, "max_pruning_ratio": 0.5}, "does not go with `max_pruning_ratio`"),
    ],
)
def test_dead_is_instead_of_an_amount(options, message):
    with pytest.raises(ValueError, match=message):
        tfc.prune_channels(mobile(), **options)
