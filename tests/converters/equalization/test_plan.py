"""What an equalization plan says: what is scaled, and why the rest is not."""

import json

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfcompress as tfc

X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")


def plan_of(*middle, **options):
    x = vector = keras.Input((4,), name="x")
    for layer in (layers.Dense(8, "relu", name="first"), *middle):
        x = layer(x)
    model = keras.Model(vector, layers.Dense(2, name="head")(x), name="net")
    return tfc.equalization_plan(model, X, **options)


REASONS = {
    "ReLU6": (layers.ReLU(6.0), "a ReLU up to 6 does not scale"),
    "threshold": (layers.ReLU(threshold=1.0), "a threshold does not scale"),
    "swish": (layers.Activation("swish"), "silu does not scale"),
    "softmax": (layers.Softmax(), "Softmax does not scale"),
    "ELU": (layers.ELU(), "ELU does not scale"),
    "normalization": (layers.LayerNormalization(), "a normalization sees all of it"),
    "offset": (layers.Rescaling(1.0, 2.0), "an offset does not scale"),
    "sum with a number": (lambda x: x + 1.0, "Add does not scale"),
    "minimum with a number": (lambda x: ops.minimum(x, 1.0), "Minimum does not scale"),
    "square": (lambda x: x * x, "multiplied with another tensor"),
    "one for all": (lambda x: x + x[:, :1], "one value is added to several channels"),
    "sum over all": (lambda x: x * ops.sum(x, -1, keepdims=True), "sum .* over it"),
    "no rule": (layers.GaussianNoise(0.1), "there is no rule for GaussianNoise"),
}


@pytest.mark.parametrize("name", REASONS)
def test_what_does_not_scale_is_kept_with_the_reason(name):
    layer, reason = REASONS[name]
    plan = plan_of(layer)
    kept = next(channels for channels in plan.kept if "first" in channels.producers)
    assert kept.before == kept.after
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(kept.why_kept)


HANDED_ON = {
    "relu": layers.ReLU(),
    "leaky": layers.LeakyReLU(0.1),
    "slopes": layers.PReLU(),
    "dropout": layers.Dropout(0.5),
    "factor": layers.Rescaling(2.0),
    "product with a number": lambda x: x * 2.0,
    "quotient": lambda x: x / 3.0,
    "maximum with 0": lambda x: ops.maximum(x, 0.0),
    "negative": lambda x: -x,
    "sum with itself": lambda x: x + ops.relu(x),
    "pad": lambda x: ops.pad(x, ((0, 0), (1, 1))),
    "part": lambda x: x[:, 2:6],
}


@pytest.mark.parametrize("name", HANDED_ON)
def test_what_scales_is_handed_on(name):
    plan = plan_of(HANDED_ON[name])
    [channels] = plan.equalized
    assert (channels.producers, channels.readers) == (("first",), ("head",))
    assert [kept.why_kept for kept in plan.kept] == ["it is an output of the model"]


def test_a_layer_that_is_folded_into_a_normalization_is_no_row():
    plan = plan_of(layers.Dense(6, name="linear"), layers.BatchNormalization(name="norm"))
    assert [channels.producers for channels in plan.channels] == [("first",), ("norm",), ("head",)]


def test_a_plan_prints_and_serializes():
    plan = plan_of(layers.Dense(6, "tanh", name="bounded"))
    said = str(plan)
    assert "net: equalized over 8 sample(s)" in said
    assert "Kept as they are" in said
    assert "tanh does not scale with what it reads (bounded)" in said
    assert max(map(len, said.splitlines())) <= 100
    plain = json.loads(json.dumps(plan.to_dict()))
    assert plain["channels"][0]["producers"] == ["first"]
    assert plain["alpha"] == 0.5


def test_channels_are_named_before_and_after():
    plan = plan_of(alpha=1.0)
    [channels] = plan.equalized
    assert channels.before > channels.after == pytest.approx(1.0)
