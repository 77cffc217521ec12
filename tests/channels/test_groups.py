"""Which channels go together: found in graphs of every kind, and listed when they must stay."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfcompress as tfc


def image():
    return keras.Input((8, 8, 3), name="image")


def classes(x):
    return layers.Dense(3, name="classes")(layers.GlobalAveragePooling2D()(x))


def residual():
    x = layers.Conv2D(8, 3, padding="same", name="a")(i := image())
    y = layers.Conv2D(6, 3, padding="same", name="b")(x)
    y = layers.Conv2D(8, 3, padding="same", name="c")(y)
    return keras.Model(i, classes(layers.Add()([x, layers.BatchNormalization(name="norm")(y)])))


def concatenated():
    x = layers.Conv2D(4, 3, name="a")(i := image())
    y = layers.Conv2D(6, 3, name="b")(i)
    return keras.Model(i, classes(layers.Conv2D(5, 1, name="c")(layers.Concatenate()([x, y]))))


def depthwise():
    x = layers.Conv2D(4, 3, name="a")(i := image())
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    return keras.Model(i, classes(layers.Conv2D(5, 1, name="b")(x)))


def grouped():
    x = layers.Conv2D(8, 3, name="a")(i := image())
    return keras.Model(i, classes(layers.Conv2D(12, 3, groups=4, name="grouped")(x)))


def squeeze_excite():
    x = layers.Conv2D(8, 3, name="a")(i := image())
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(2, 1, activation="relu", name="squeeze")(gate)
    gate = layers.Conv2D(8, 1, activation="sigmoid", name="excite")(gate)
    return keras.Model(i, classes(layers.Multiply()([x, gate])))


def flattened():
    x = layers.Flatten()(layers.Conv2D(4, 3, strides=3, name="a")(i := image()))
    return keras.Model(i, layers.Dense(3, name="classes")(x))


def attention():
    i = keras.Input((5, 8), name="x")
    x = layers.Dense(8, name="embed")(i)
    y = layers.MultiHeadAttention(4, 3, name="attend")(x, x)
    x = layers.LayerNormalization(name="norm")(layers.Add()([x, y]))
    return keras.Model(i, layers.Dense(2, name="head")(x))


def embedded():
    i = keras.Input((5,), dtype="int32", name="tokens")
    x = layers.Embedding(20, 6, name="embed")(i)
    return keras.Model(i, layers.Dense(2, name="head")(layers.LSTM(4, name="lstm")(x)))


def nested():
    inner = keras.Sequential(
        [layers.Conv2D(6, 3, padding="same", name="one"), layers.Conv2D(4, 1, name="two")],
        name="inner",
    )
    x = inner(layers.Conv2D(4, 3, padding="same", name="a")(i := image()))
    return keras.Model(i, classes(inner(x)))


# For each group that can be cut: units, and the layers that make them.
GROUPS = {
    residual: {8: {"a", "c"}, 6: {"b"}},
    concatenated: {4: {"a"}, 6: {"b"}, 5: {"c"}},
    depthwise: {4: {"a"}, 5: {"b"}},
    # Two of eight in each of four groups: whatever is cut, they stay alike.
    grouped: {2: {"a"}, 3: {"grouped"}},
    squeeze_excite: {8: {"a", "excite"}, 2: {"squeeze"}},
    flattened: {4: {"a"}},
    attention: {8: {"embed", "attend"}, 4: {"attend"}},
    embedded: {6: {"embed"}, 4: {"lstm"}},
    nested: {4: {"a", "inner/two"}, 6: {"inner/one"}},
}


@pytest.mark.parametrize("build", GROUPS, ids=lambda build: build.__name__)
def test_groups(build):
    groups = tfc.channel_groups(build())
    assert {group.size: set(group.producers) for group in groups.prunable} == GROUPS[build]
    [last] = [group for group in groups if "output" in (group.why_kept or "")]
    assert last.producers[0] in ("classes", "head")


def test_members_are_the_axes_that_get_shorter():
    groups = tfc.channel_groups(residual())
    [wide] = [group for group in groups if group.size == 8]
    found = {(m.path, m.variable.name, m.axis, m.role) for m in wide.members}
    parameters = {
        ("norm", name, 0, "parameter")
        for name in ("gamma", "beta", "moving_mean", "moving_variance")
    }
    assert found == parameters | {
        ("a", "kernel", 3, "output"), ("a", "bias", 0, "parameter"),
        ("c", "kernel", 3, "output"), ("c", "bias", 0, "parameter"),
        ("b", "kernel", 2, "input"), ("classes", "kernel", 0, "input"),
    }  # fmt: skip


def test_positions_of_one_unit():
    [group] = tfc.channel_groups(flattened()).prunable
    [dense] = [m for m in group.members if m.path == "classes"]
    np.testing.assert_array_equal(dense.units, np.tile(np.arange(4), 4))
    groups = tfc.channel_groups(depthwise())
    [kernel] = [m for m in groups[0].members if m.path == "b"]
    np.testing.assert_array_equal(kernel.units, np.repeat(np.arange(4), 2))


def test_attention_loses_heads_or_width():
    heads = tfc.channel_groups(attention())
    assert [group.kind for group in heads.prunable] == ["channels", "heads"] or [
        group.kind for group in heads.prunable
    ] == ["units", "heads"]
    widths = tfc.channel_groups(attention(), attention="width")
    assert {group.kind for group in widths.prunable} >= {"key width", "value width"}
    assert "heads" not in {group.kind for group in widths.prunable}
    assert {group.normalized_by for group in heads if group.size == 8} == {"norm"}


def test_filters_protect():
    groups = tfc.channel_groups(residual(), filters="^[ab]$")
    assert [group.producers for group in groups.prunable] == [("b",)]
    [kept] = [group for group in groups if "a" in group.producers]
    assert "c is not in `filters`" in kept.why_kept
    assert tfc.channel_groups(nested(), filters=["inner"]).prunable[0].producers == ("inner/one",)
    with pytest.raises(ValueError, match=r"'nothing'.*a, b, c, classes"):
        tfc.channel_groups(residual(), filters="nothing")


def test_what_has_no_rule_is_listed_and_kept():
    i = keras.Input((6,), name="x")
    x = layers.Dense(6, name="before")(i)
    x = layers.Lambda(lambda t: t[:, ::-1], output_shape=(6,), name="flip")(x)
    x = layers.Dense(5, name="after")(x)
    x = layers.Activation(lambda t: ops.cumsum(t, axis=-1), name="sums")(x)
    groups = tfc.channel_groups(keras.Model(i, layers.Dense(2, name="head")(x)))
    assert groups.unknown == {"flip": "Lambda"}
    assert not groups.prunable
    why = {group.producers[0]: group.why_kept for group in groups}
    assert "no rule for Lambda (flip)" in why["before"]
    assert "<lambda>" in why["after"]
    assert "flip (Lambda)" in str(groups)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: layers.Softmax()(x), "softmax"),
        (lambda x: ops.sum(x, axis=-1, keepdims=True), "sum"),
        (lambda x: x[:, ::2], "step"),
        (lambda x: x[:, 1], "taken out"),
        (lambda x: ops.add(x, np.ones(6, "float32")), "nothing can be cut"),
        (lambda x: ops.cumsum(x, axis=-1), "no rule for Cumsum"),
    ],
)
def test_why_units_stay(change, reason):
    i = keras.Input((4,), name="x")
    x = change(layers.Dense(6, name="a")(i))
    x = ops.reshape(x, (-1, 1)) if len(x.shape) == 1 else x
    groups = tfc.channel_groups(keras.Model(i, layers.Dense(2, name="head")(x)))
    assert reason in groups[0].why_kept


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, None, :],
        lambda x: x[:, None, 1:5],
        lambda x: x[None, :, ...],
    ],
)
def test_new_axes_keep_nothing(change):
    i = keras.Input((4,), name="x")
    x = change(layers.Dense(6, name="a")(i))
    groups = tfc.channel_groups(keras.Model(i, layers.Dense(2, name="head")(x)))
    assert [(group.producers, group.size) for group in groups.prunable] == [(("a",), 6)]


def test_layers_that_keras_changed_are_kept():
    model = residual()
    model.get_layer("classes").enable_lora(2)
    groups = tfc.channel_groups(model)
    assert groups.unknown == {"classes": "Dense"}
    assert [group.producers for group in groups.prunable] == [("b",)]
    i = keras.Input((3, 8, 8))
    x = layers.Conv2D(4, 3, data_format="channels_first", name="first")(i)
    x = layers.Dense(2)(layers.GlobalAveragePooling2D(data_format="channels_first")(x))
    groups = tfc.channel_groups(keras.Model(i, x))
    assert "first" in groups.unknown
    assert not groups.prunable


def test_groups_print_themselves():
    text = str(tfc.channel_groups(residual()))
    assert "a, c" in text
    assert "it is an output of the model" in " ".join(text.split())
    assert str(tfc.channel_groups(residual())[1]) == "6 channels of b; read by c"


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x) if keras.ops.convert_to_numpy(x).sum() > 0 else x


def test_bad_input():
    own = Own()
    own(np.ones((1, 2), "float32"))
    with pytest.raises(ValueError, match="subclassed"):
        tfc.channel_groups(own)
    with pytest.raises(ValueError, match="not built"):
        tfc.channel_groups(keras.Sequential([layers.Dense(2)]))
    with pytest.raises(TypeError, match=r"keras\.Model"):
        tfc.channel_groups("model")
    with pytest.raises(ValueError, match="before `quantize_aware`"):
        tfc.channel_groups(tfc.quantize_aware(residual()))
    with pytest.raises(ValueError, match="'depth'"):
        tfc.channel_groups(residual(), attention="depth")
