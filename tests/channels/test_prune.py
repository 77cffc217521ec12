"""Cutting channels: what nothing reads can go without a trace, whatever the graph."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfcompress as tfc
from tests.zoo.architectures import ARCHITECTURES, DEEP, marks
from tfcompress import converters
from tfcompress.model.layers import all_layers

# Products of float32 are summed in another order, over fewer terms.
FLOAT = {"rtol": 1e-4, "atol": 1e-5}


def outputs(model, x):
    return [np.asarray(y) for y in keras.tree.flatten(model(x, training=False))]


def silence(model, attention="heads", seed=0):
    """Zero all that reads half of the units of each group, and score these lowest.

    Units that a layer normalizes over are left out: without one, the others change.
    """
    rng = np.random.default_rng(seed)
    silent = {}
    for group in tfc.channel_groups(model, attention=attention).prunable:
        if group.normalized_by is not None:
            continue
        units = rng.permutation(group.size)[: group.size // 2]
        silent[group.kind, group.producers] = units
        readers = [m for m in group.members if m.role == "input"]
        if not readers or group.kind == "head width":
            # Queries and keys are multiplied with each other: no kernel reads them.
            readers = group.members
        for member in readers:
            array = member.variable.numpy()
            index = [slice(None)] * array.ndim
            index[member.axis] = np.isin(member.units, units)
            array[tuple(index)] = 0
            member.variable.assign(array)

    def score(model, groups):
        scores = [np.ones(group.size) for group in groups]
        for group, values in zip(groups, scores, strict=True):
            values[silent.get((group.kind, group.producers), [])] = 0
        return scores

    return score, sum(len(units) for units in silent.values())


def cut_what_is_silent(model, **options):
    score, count = silence(model, options.get("attention", "heads"))
    total = sum(
        g.size
        for g in tfc.channel_groups(model, attention=options.get("attention", "heads")).prunable
    )
    return tfc.prune_channels(
        model, count / total, importance=score, scope="global", max_pruning_ratio=1.0, **options
    )


# Nothing can be cut from these: they are one layer, or have a Lambda or the input in a residual.
WHOLE = {"custom layer", "Lambda", "layer used twice", "raw ops on Keras tensors"}
# One of each kind runs by default.
DEFAULT = {
    *(
        "conv-bn-relu",
        "depthwise-bn-relu6",
        "LSTM",
        "MHA",
        "multi-input multi-output",
        "nested model",
    ),
    *("separable 1d", "siamese", "subclassed model", "TimeDistributed", "transformer block"),
}


CUTTABLE = [
    pytest.param(name, marks=marks(name, DEFAULT)) for name in ARCHITECTURES if name not in WHOLE
]


@pytest.mark.parametrize("name", CUTTABLE)
def test_what_nothing_reads_goes_without_a_trace(name):
    case = ARCHITECTURES[name]()
    before = tfc.channel_groups(case.model).model
    # A Normalization computes with copies of its variables, which assigning leaves as they are.
    adapted = [la for la in all_layers(before) if isinstance(la, layers.Normalization)]
    kept = {variable.path for layer in adapted for variable in layer.variables}
    for variable in before.variables:  # statistics, biases and factors that are not all alike
        if variable.path not in kept and any(
            part in variable.name for part in ("mean", "variance", "beta", "gamma", "bias")
        ):
            noise = np.random.default_rng(len(variable.path)).uniform(0.5, 1.5, variable.shape)
            variable.assign(noise.astype(variable.dtype))
    small = cut_what_is_silent(before)
    exact = name != "mixed_float16"
    tolerance = FLOAT if exact else {"rtol": 2e-2, "atol": 2e-3}  # half precision: 11 bits
    if name in DEEP:  # the sums of a hundred layers
        tolerance = {"rtol": 1e-3, "atol": 1e-4}
    for old, new in zip(outputs(before, case.x), outputs(small, case.x), strict=True):
        np.testing.assert_allclose(new, old, **tolerance)
    if any(group.normalized_by is None for group in tfc.channel_groups(before).prunable):
        assert small.count_params() < before.count_params()


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_nothing_to_cut(name):
    with pytest.raises(ValueError, match="nothing to cut"):
        tfc.prune_channels(ARCHITECTURES[name]().model, 0.5)


# Noise from 0 to 1 is not what a model expects that scales pixels itself.
@pytest.mark.filterwarnings("ignore:The samples for input:UserWarning")
@pytest.mark.parametrize("name", CUTTABLE)
def test_half_of_each_group(name, tmp_path):
    case = ARCHITECTURES[name]()
    original = [np.array(w) for w in case.model.get_weights()]
    groups = tfc.channel_groups(case.model)
    small = tfc.prune_channels(case.model, 0.5)
    for old, new in zip(original, case.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)

    left = {(group.kind, group.producers): group.size for group in tfc.channel_groups(small)}
    for group in groups:
        size = group.size - group.size // 2 if group.why_kept is None else group.size
        if group.size > 2:
            assert left[group.kind, group.producers] == size, group
    before, after = tfc.summary(groups.model).total, tfc.summary(small).total
    assert after.parameters < before.parameters
    assert after.macs < (0.8 if name != "conv3d" else 1.0) * before.macs

    # Tracing a large one takes longer than its two steps.
    small.compile(
        keras.optimizers.SGD(1e-4), case.loss, run_eagerly=name in DEEP, jit_compile=False
    )
    history = small.fit(case.x, case.y, batch_size=8, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    for one, other in zip(outputs(small, case.x), outputs(again, case.x), strict=True):
        np.testing.assert_array_equal(one, other)
    if name in DEEP or name in ("MHA", "MobileNet", "separable 2d"):
        precisions = {"float32": converters.Float32(), "int8": converters.Int8(case.x)}
        paths = {tmp_path / f"{key}.tflite": value for key, value in precisions.items()}
        float32, int8 = converters.convert_all(small, paths, batch_size=1)
        # Softmax probabilities and small sums, in float32 by another library
        converters.verify(small, float32, case.x).raise_if_above(max_error=1e-4)
        assert not int8.float_macs
        assert int8.bytes < float32.bytes or name not in DEEP


def shuffled():
    """ShuffleNet's unit, in raw operations: split, grouped convolution, shuffle, join."""
    i = keras.Input((6, 6, 3))
    x = layers.Conv2D(16, 3, padding="same", name="stem")(i)
    left, right = ops.split(x, 2, axis=-1)
    right = layers.Conv2D(8, 1, name="right")(right)
    x = ops.concatenate([left, right], axis=-1)
    x = ops.reshape(x, (-1, 6, 6, 2, 8))
    x = ops.transpose(x, (0, 1, 2, 4, 3))
    x = ops.reshape(x, (-1, 6, 6, 16))
    x = layers.Conv2D(12, 3, groups=2, name="grouped")(x)
    return keras.Model(i, layers.Dense(2)(ops.mean(x, axis=(1, 2))))


def sliced():
    """Gates out of one matrix, some of it padded, some of it squeezed."""
    i = keras.Input((5,))
    x = layers.Dense(12, name="both")(i)
    gate, value = ops.sigmoid(x[:, :6]), x[..., 6:]
    x = ops.pad(gate * value, [[0, 0], [1, 2]])
    x = ops.squeeze(ops.expand_dims(x, 1), 1)
    x = ops.maximum(layers.Dense(7, name="after")(x), 0.0)
    return keras.Model(i, layers.Dense(2)(ops.stack([x, -x], axis=1)))


def multiplied():
    """Attention by hand: two matrix products, and an einsum."""
    i = keras.Input((4, 6))
    q, k, v = (layers.Dense(8, name=name)(i) for name in "qkv")
    weights = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 2, 1))))
    x = ops.einsum("bij,bjc->bic", weights, v)
    x = layers.EinsumDense("bic,chd->bihd", (4, 2, 6), bias_axes="hd", name="heads")(x)
    return keras.Model(i, layers.Dense(3)(layers.Reshape((4, 12))(x)))


def recurrent():
    i = keras.Input((5, 4))
    x = layers.Bidirectional(layers.GRU(6, return_sequences=True), merge_mode="sum", name="two")(i)
    x = layers.TimeDistributed(layers.Dense(8, "relu"), name="each")(x)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="joined")(x)
    x = layers.SimpleRNN(7, name="simple")(x)
    return keras.Model(i, layers.Dense(2)(layers.RepeatVector(2)(x)))


def imaged():
    i = keras.Input((8, 8, 3))
    x = layers.Conv2DTranspose(8, 2, strides=2, name="up")(i)
    x = layers.GroupNormalization(-1)(layers.PReLU(shared_axes=(1, 2))(x))
    x = layers.SeparableConv2D(6, 3, depth_multiplier=2, activation="relu", name="separable")(x)
    x = layers.Conv2D(6, 3, groups=6, name="grouped")(x)
    x = layers.Permute((3, 1, 2))(layers.MaxPooling2D()(x))
    x = layers.Permute((2, 3, 1))(x)
    return keras.Model(i, layers.Dense(2)(layers.Flatten()(x)))


def grouped():
    """Attention written out, in which two heads of queries share one of keys and values."""
    i = keras.Input((5, 6))
    q, k, v = (
        layers.EinsumDense("btd,dhe->bthe", (5, heads, 3), name=name)(i)
        for name, heads in (("q", 4), ("k", 2), ("v", 2))
    )
    k, v = (ops.repeat(x, 2, axis=2) for x in (k, v))
    q, k = (ops.moveaxis(x, (2, 1), (1, -2)) for x in (q, k))
    scores = ops.softmax(ops.einsum("bnth,bnsh->bnts", q, k))
    x = ops.einsum("bnts,bsnh->btnh", scores, v)
    x = layers.EinsumDense("bthe,hed->btd", (5, 6), name="out")(x)
    return keras.Model(i, layers.Dense(2)(x))


def test_heads_go_with_those_that_share_their_keys():
    groups = tfc.channel_groups(grouped()).prunable
    [heads] = [group for group in groups if {"q", "k", "v"} <= set(group.producers)]
    assert heads.size == 2
    small = tfc.prune_channels(grouped(), 0.5, round_to=1)
    shapes = {n: small.get_layer(n).kernel.shape for n in ("q", "k", "v")}
    assert [shape[1] for shape in shapes.values()] == [2, 1, 1]


@pytest.mark.parametrize("build", [shuffled, sliced, multiplied, recurrent, imaged, grouped])
def test_operations_follow(build, tmp_path):
    model = build()
    x = np.random.default_rng(0).normal(size=(6, *model.input_shape[1:])).astype("float32")
    small = cut_what_is_silent(model)
    assert small.count_params() < model.count_params()
    np.testing.assert_allclose(outputs(small, x)[0], outputs(model, x)[0], **FLOAT)
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(outputs(again, x)[0], outputs(small, x)[0])


@pytest.mark.parametrize("kind", ["heads", "width"])
def test_attention(kind):
    i = keras.Input((5, 6))
    x, scores = layers.MultiHeadAttention(4, 6, value_dim=4)(i, i, return_attention_scores=True)
    y = layers.GroupQueryAttention(6, 4, 2)(i, i)
    model = keras.Model(i, [layers.Dense(2)(layers.Concatenate()([x, y])), scores])
    if kind == "heads":  # the weights of each head are an output: only grouped ones can go
        groups = tfc.channel_groups(model)
        assert any("each head is given back" in (g.why_kept or "") for g in groups)
    data = np.random.default_rng(0).normal(size=(6, 5, 6)).astype("float32")
    small = cut_what_is_silent(model, attention=kind)
    assert small.count_params() < model.count_params()
    for new, old in zip(outputs(small, data), outputs(model, data), strict=True):
        np.testing.assert_allclose(new, old, **FLOAT)


def test_of_a_nested_model_called_twice_and_of_dictionaries():
    inner = keras.Sequential([keras.Input((None, 8)), layers.Dense(8, name="d")], name="inner")
    a, b = keras.Input((3, 4), name="a"), keras.Input((3, 4), name="b")
    embed = layers.Dense(8, name="embed")
    x, y = inner(embed(a)), inner(embed(b))
    data = {k: np.random.default_rng(0).normal(size=(4, 3, 4)).astype("float32") for k in "ab"}
    model = keras.Model({"a": a, "b": b}, {"sum": layers.Dense(1, name="sum")(x + y)})
    small = cut_what_is_silent(model)
    assert small.get_layer("embed").units == 4
    assert small.get_layer("inner").get_layer("d").units == 4
    np.testing.assert_allclose(
        small.predict(data, verbose=0)["sum"], model.predict(data, verbose=0)["sum"], **FLOAT
    )


def sequence(*shape):
    return keras.Input(shape or (5, 4), name="x")


def dense(x, units=8, **options):
    return layers.Dense(units, **options)(x)


def nested_lengths(x):
    inner = keras.Sequential([keras.Input((None, 8)), layers.Dense(6)])
    x = dense(x)
    return ops.concatenate([inner(x), inner(x[:, :3])], axis=1)


def nested_by_name(x):
    """In a dictionary the inputs stand in another order than in the model."""
    b, a = keras.Input((5, 8), name="b"), keras.Input((5, 8), name="a")
    inner = keras.Model([b, a], layers.Concatenate()([layers.Dense(6)(b), a]), name="inner")
    return inner({"a": dense(x), "b": dense(x), "unused": x})


def halves(x):
    a, b = ops.split(dense(x, 16), 2, axis=-1)
    return ops.softmax(a), b


def pooled_by_attention(x):
    weights = ops.softmax(ops.squeeze(dense(x, 1), -1) * 0.5, axis=1)
    return ops.sum(dense(x) * ops.expand_dims(weights, -1), axis=1)


def masked_attention(x):
    y = dense(x)
    return layers.MultiHeadAttention(2, 4)(y, y, attention_mask=dense(x, 5, activation="sigmoid"))


def biased_in_the_middle(x):
    return layers.EinsumDense("abc,cde->abde", (5, 4, 3), bias_axes="d")(dense(x))


def own_relu(x):
    return x - ops.max(x, axis=-1, keepdims=True)


own_relu.__name__ = "relu"

CORNERS = {
    "a step along another axis": lambda x: dense(x)[:, ::2, :],
    "reversed": lambda x: dense(x)[:, ::-1],
    "a new axis": lambda x: dense(x)[:, None] + dense(x)[..., None, :],
    "new axes, and a part": lambda x: dense(x)[:, None, 1:3, :, None][..., 2:6, 0],
    "a half through a softmax": lambda x: [dense(half, 2) for half in halves(x)],
    "a matrix by a constant": lambda x: ops.matmul(dense(x), np.ones((8, 3), "float32")),
    "a constant by a matrix": lambda x: ops.matmul(np.ones((2, 5), "float32"), dense(x)),
    "numbers by position": lambda x: ops.take(dense(x), np.array([0, 3]), axis=1),
    "keywords": lambda x: ops.add(x1=dense(x), x2=layers.Add()(inputs=[dense(x), dense(x)])),
    "a softmax among gates": lambda x: layers.GRU(6, recurrent_activation="softmax")(dense(x)),
    "relu by name only": lambda x: dense(x, activation=own_relu),
    "attention pooling": pooled_by_attention,
    "bias on a middle axis": biased_in_the_middle,
    "an ellipsis": lambda x: layers.EinsumDense("...x,xy->...y", output_shape=8)(dense(x)),
    "a model called with two lengths": nested_lengths,
    "a model called by the names of its inputs": nested_by_name,
    "a gate for all steps": lambda x: layers.Multiply()([dense(x), dense(x[:, 0])]),
    "two kinds of directions": lambda x: layers.Bidirectional(
        layers.LSTM(6), backward_layer=layers.GRU(6, go_backwards=True)
    )(dense(x)),
    "two widths of directions": lambda x: layers.Bidirectional(
        layers.LSTM(6), backward_layer=layers.LSTM(4, go_backwards=True)
    )(dense(x)),
    "a mask that is learned": masked_attention,
    "an einsum without a result": lambda x: ops.einsum("bij,bkj", dense(x), dense(x)),
    "comparisons": lambda x: ops.where(ops.greater(y := dense(x), 0.0), y, y * 0.1),
}


@pytest.mark.parametrize("name", CORNERS)
def test_corners(name):
    """Where axes meet in unusual ways, what is silent goes, or all is kept; nothing is wrong."""
    i = sequence()
    ends = keras.tree.flatten(CORNERS[name](i))
    model = keras.Model(i, [dense(end, 2) for end in ends])
    x = np.random.default_rng(0).normal(size=(6, 5, 4)).astype("float32")
    if not tfc.channel_groups(model).prunable:
        return
    small = cut_what_is_silent(model)
    for new, old in zip(outputs(small, x), outputs(model, x), strict=True):
        assert new.shape == old.shape
        np.testing.assert_allclose(new, old, **FLOAT)


def test_something_is_left_of_every_axis():
    """Though one half of a split scores lowest, and is all that would be cut."""
    i = sequence(4)
    a, b = ops.split(dense(i, 12, name="both"), 2, axis=-1)
    wide = dense(i, 1, name="one")
    joined = layers.Concatenate()([dense(i, 3), wide]) + dense(i, 4)
    model = keras.Model(i, [dense(a, 2), dense(b, 2), dense(joined * wide, 2)])

    def scores(model, groups):
        return [np.arange(float(group.size)) for group in groups]

    options = {"importance": scores, "max_pruning_ratio": 1.0}
    for amount in (0.5, 0.9):
        small = tfc.prune_channels(model, amount, **options)
        assert all(0 not in weight.shape for weight in small.weights)
        assert small.get_layer("one").units == 1
        assert all(np.isfinite(y).all() for y in outputs(small, np.ones((2, 4), "float32")))
