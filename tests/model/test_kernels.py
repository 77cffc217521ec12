import re

import keras
import numpy as np
import pytest
from keras import layers

from tests.support.helpers import as_id
from tfcompress.model import filters, kernels


def paths(model, **kwargs):
    return [kernel.path for kernel in kernels.kernels(model, **kwargs)]


def axes(layer, shape, kernel=0):
    model = keras.Sequential([keras.Input(shape), layer])
    found = kernels.kernels(model, depthwise=True)[kernel]
    return found.output_axes, found.input_axes, found.depthwise


@pytest.mark.parametrize(
    ("layer", "shape", "kernel", "expected"),
    [
        (layers.Dense(4), (8,), 0, ((1,), (0,), False)),
        (layers.Conv1D(4, 3), (8, 2), 0, ((2,), (1,), False)),
        (layers.Conv2D(4, 3), (8, 8, 2), 0, ((3,), (2,), False)),
        (layers.Conv3D(4, 2), (4, 4, 4, 2), 0, ((4,), (3,), False)),
        (layers.Conv1DTranspose(4, 3), (8, 2), 0, ((1,), (2,), False)),
        (layers.Conv2DTranspose(4, 3), (8, 8, 2), 0, ((2,), (3,), False)),
        (layers.Conv3DTranspose(4, 2), (4, 4, 4, 2), 0, ((3,), (4,), False)),
        (layers.DepthwiseConv2D(3), (8, 8, 2), 0, ((2, 3), (), True)),
        (layers.SeparableConv2D(4, 3), (8, 8, 2), 0, ((2, 3), (), True)),
        (layers.SeparableConv2D(4, 3), (8, 8, 2), 1, ((3,), (2,), False)),
        (layers.EinsumDense("abc,cde->abde", (None, 2, 3)), (8, 4), 0, ((1, 2), (0,), False)),
        (layers.EinsumDense("abcd,cde->abe", (None, 5)), (8, 2, 3), 0, ((2,), (0, 1), False)),
        (layers.EinsumDense("...x,xy->...y", (8, 5)), (8, 4), 0, ((1,), (0,), False)),
        (layers.Embedding(10, 4), (6,), 0, ((0,), (1,), False)),
        (layers.LSTM(4), (6, 3), 0, ((1,), (0,), False)),
        (layers.LSTM(4), (6, 3), 1, ((1,), (0,), False)),
        (layers.ConvLSTM2D(4, 3), (2, 8, 8, 3), 1, ((3,), (2,), False)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_axes(layer, shape, kernel, expected):
    assert axes(layer, shape, kernel) == expected


@keras.saving.register_keras_serializable("test_kernels")
class Scaled(layers.Layer):
    """A custom layer with two kernels under names of its own, and what is none."""

    def build(self, shape):
        self.mixing = self.add_weight(shape=(shape[-1], 5), name="mixing")
        self.out = self.add_weight(shape=(5, 4), name="out_matrix")
        self.gamma = self.add_weight(shape=(2, 4), name="gamma")
        self.token = self.add_weight(shape=(1, 1, 4), name="token")
        self.counts = self.add_weight(shape=(2, 4), name="counts", dtype="int32", trainable=False)
        self.state = self.add_weight(shape=(2, 4), name="state", trainable=False)

    def call(self, x):
        return x @ self.mixing @ self.out * self.gamma[0] + self.token[0]


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = [layers.Dense(4, name=f"block_{i}") for i in range(2)]
        self.named = {"extra": layers.Dense(4, name="extra")}

    def build(self, shape):
        self.own = self.add_weight(shape=(4, 4), name="own")
        for layer in [*self.blocks, *self.named.values()]:
            layer.build((None, 4))

    def call(self, x):
        for layer in [*self.blocks, *self.named.values()]:
            x = layer(x)
        return x @ self.own


def test_layers_inside_layers():
    x = keras.Input((6, 8))
    y = layers.MultiHeadAttention(2, 4, name="mha")(x, x)
    y = layers.Bidirectional(layers.LSTM(4, return_sequences=True, name="lstm"), name="both")(y)
    y = layers.TimeDistributed(layers.Dense(4, name="dense"), name="each")(y)
    inner = keras.Sequential([keras.Input((6, 4)), layers.Conv1D(4, 1, name="conv")], name="inner")
    y = layers.BatchNormalization()(inner(inner(y)))
    model = keras.Model(x, Scaled(name="scaled")(y))
    assert paths(model) == [
        "mha/query/kernel",
        "mha/key/kernel",
        "mha/value/kernel",
        "mha/attention_output/kernel",
        "both/forward_lstm/lstm_cell/kernel",
        "both/forward_lstm/lstm_cell/recurrent_kernel",
        "both/backward_lstm/lstm_cell/kernel",
        "both/backward_lstm/lstm_cell/recurrent_kernel",
        "each/dense/kernel",
        "inner/conv/kernel",
        "scaled/mixing",
        "scaled/out_matrix",
    ]


def test_subclassed_model():
    model = Subclassed()
    model.build((None, 4))
    found = paths(model)
    assert sorted(found) == sorted(
        ["block_0/kernel", "block_1/kernel", "extra/kernel", f"{model.name}/own"]
    )


def test_shared_layer_once_and_frozen_layer_never():
    x = keras.Input((8,))
    shared = layers.Dense(8, name="shared")
    frozen = layers.Dense(4, name="frozen", trainable=False)
    model = keras.Model(x, frozen(shared(shared(x))))
    assert paths(model) == ["shared/kernel"]


def test_a_depthwise_convolution_written_as_a_grouped_one():
    """As in Keras' own ConvNeXt; two channels a group are no depthwise convolution."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.Conv2D(4, 3, groups=4, name="depthwise"),
            layers.Conv2D(4, 3, groups=2, name="grouped"),
        ]
    )
    assert paths(model) == ["grouped/kernel"]
    assert paths(model, depthwise=True) == ["depthwise/kernel", "grouped/kernel"]


def test_depthwise_only_when_asked():
    model = keras.Sequential(
        [keras.Input((8, 8, 4)), layers.SeparableConv2D(4, 3, name="separable")]
    )
    assert paths(model) == ["separable/pointwise_kernel"]
    assert paths(model, depthwise=True) == [
        "separable/depthwise_kernel",
        "separable/pointwise_kernel",
    ]


def test_quantized_kernels_are_not_listed():
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(4, name="int8"), layers.Dense(4, name="float")]
    )
    model.layers[0].quantize("int8")
    assert paths(model) == ["float/kernel"]
    with pytest.raises(ValueError, match="float"):
        kernels.select(model, "int8")


@pytest.fixture(scope="module")
def network():
    x = keras.Input((8, 8, 4))
    block = keras.Sequential(
        [keras.Input((8, 8, 4)), layers.Conv2D(4, 3, padding="same", name="conv")], name="backbone"
    )
    y = layers.Conv2D(4, 1, name="conv_1")(block(x))
    y = layers.DepthwiseConv2D(3, name="depth")(y)
    return keras.Model(x, layers.Dense(2, name="head")(layers.Flatten()(y)))


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (None, ["backbone/conv", "conv_1", "head"]),
        ("conv", ["backbone/conv", "conv_1"]),
        ("^conv", ["conv_1"]),
        ("conv|head", ["backbone/conv", "conv_1", "head"]),
        (["backbone"], ["backbone/conv"]),
        (["conv", "head"], ["backbone/conv", "head"]),
        (("backbone/conv",), ["backbone/conv"]),
        (lambda layer: isinstance(layer, layers.Dense), ["head"]),
        (lambda layer: layer.name != "head", ["backbone/conv", "conv_1"]),
    ],
    ids=as_id,
)
def test_filters(network, chosen, expected):
    found = kernels.select(network, chosen)
    assert [kernel.layer_path for kernel in found] == expected


def test_filters_as_layers(network):
    backbone, head = network.get_layer("backbone"), network.get_layer("head")
    found = kernels.select(network, [backbone, head])
    assert [kernel.layer for kernel in found] == [backbone.get_layer("conv"), head]


def test_filters_that_match_nothing_say_what_there_is(network):
    with pytest.raises(ValueError, match=re.escape("backbone/conv, conv_1, head")):
        kernels.select(network, "dense")
    with pytest.raises(ValueError, match=r"'heat' in `filters`.*backbone/conv, conv_1, head"):
        kernels.select(network, ["conv_1", "heat"])
    with pytest.raises(ValueError, match="depthwise=True"):
        kernels.select(network, "depth")
    assert len(kernels.select(network, "depth", depthwise=True)) == 1


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ("(", ValueError, "regular expression"),
        ([], ValueError, "empty"),
        (3, TypeError, "Received: 3"),
        ([3], TypeError, "Received: 3"),
        (layers.Dense(2), TypeError, "a list of layers"),
    ],
    ids=as_id,
)
def test_wrong_filters(wrong, error, message):
    with pytest.raises(error, match=message):
        filters.check(wrong)


def test_models_that_cannot_be_walked(network, monkeypatch):
    unbuilt = keras.Sequential([layers.Dense(4)], name="later")
    with pytest.raises(ValueError, match="'later' is not built"):
        kernels.kernels(unbuilt)
    with pytest.raises(TypeError, match=r"keras\.Model"):
        kernels.kernels(np.zeros(3))
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="KERAS_BACKEND=tensorflow"):
        kernels.kernels(network)
