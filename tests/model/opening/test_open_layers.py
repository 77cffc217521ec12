import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from tests.model.opening.blocks import Block, Mlp, classifier
from tfcompress import converters
from tfcompress.model.keras_private import flat_layers, number_of_calls
from tfcompress.model.layers import rule_class

IDS = np.array([[1, 2, 3, 4], [5, 0, 0, 0], [7, 8, 0, 0]])


def inside(model):
    return {layer.name: type(layer).__name__ for layer in model.layers}


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_computes_the_same_with_the_same_weights_and_loads(dtype, tmp_path):
    model = classifier(dtype)
    before = [(layer, number_of_calls(layer), layer.name) for layer in flat_layers(model)]
    opened = tfc.open_layers(model)
    assert before == [(la, number_of_calls(la), la.name) for la in flat_layers(model)]
    assert not {"Block", "Mlp"} & set(inside(opened).values())
    assert inside(opened)["shared_attention"] == "MultiHeadAttention"
    assert inside(opened)["own_mlp_wide"] == "Dense"
    assert opened.output_names == model.output_names
    assert opened.input_shape == (None, 4)
    assert {id(v) for v in opened.variables} == {id(v) for v in model.variables}

    expected = model(IDS)
    np.testing.assert_array_equal(opened(IDS), expected)
    # A block that forgets the mask gives other values where tokens are missing.
    assert np.abs(model(np.where(IDS, IDS, 9)) - expected).max() > 1e-3
    opened.save(tmp_path / "opened.keras")
    loaded = keras.models.load_model(tmp_path / "opened.keras")
    np.testing.assert_array_equal(loaded(IDS), expected)


def test_layers_inside_drop_in_training_only():
    model = classifier()
    opened = tfc.open_layers(model)
    still = opened(IDS)
    np.testing.assert_array_equal(opened(IDS, training=False), still)
    assert np.abs(opened(IDS, training=True) - still).max() > 1e-3
    opened.compile("sgd", "mse", jit_compile=False)
    opened.fit(IDS, np.ones((3, 8)), verbose=0)
    np.testing.assert_array_equal(model(IDS), opened(IDS))  # The weights are those of the model.
    assert np.abs(model(IDS) - still).max() > 1e-6


def test_names_are_the_same_each_time():
    model = classifier()
    first, second = tfc.open_layers(model), tfc.open_layers(model)
    assert [op.name for op in first.operations] == [op.name for op in second.operations]


@pytest.mark.parametrize(
    "filters",
    ["own", ["own"], lambda layer: layer.name in ("own", "mlp")],
    ids=["regex", "list", "function"],
)
def test_filters_open_some(filters):
    names = inside(tfc.open_layers(classifier(), filters))
    assert names["shared"] == "Block"
    assert names["own_mlp_wide"] == "Dense"
    with pytest.raises(ValueError, match="No layer that holds layers in 'classifier'"):
        tfc.open_layers(classifier(), ["pool"])


class InTraining(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4)

    def call(self, x, training=False):
        return self.dense(x * 2 if training else x)


class Tied(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embedding = layers.Embedding(6, 4)
        self.dense = layers.Dense(4)

    def call(self, x):
        h = self.dense(x) + keras.ops.sum(self.embedding(keras.ops.argmax(x, -1)))
        return keras.ops.matmul(h, keras.ops.transpose(self.embedding.embeddings))


class Regularized(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4)

    def call(self, x):
        x = self.dense(x)
        self.add_loss(keras.ops.mean(x))
        return x


class Counting(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4)
        self.steps = [self.add_weight((), "zeros", trainable=False, name="steps")]

    def call(self, x):
        self.steps[0].assign_add(1.0)
        return self.dense(x)


class RawTensorFlow(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4)

    def call(self, x):
        import tensorflow as tf

        return tf.math.sin(self.dense(x))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (InTraining, "its `call` does something else in training"),
        (Tied, "its `call` reads 'block/embedding.*/embeddings', a weight of a layer inside it"),
        (Regularized, "its `call` adds a loss"),
        (Counting, "its `call` (changes weights|reads 'block/steps')"),
        (
            RawTensorFlow,
            "its `call` uses a function of TensorFlow, which takes no symbolic tensors",
        ),
        (lambda name: Mlp(4, name=name, activity_regularizer="l2"), "an activity regularizer"),
    ],
    ids=["training", "tied", "loss", "state", "raw", "regularizer"],
)
def test_keeps_whole_what_a_graph_cannot_say(kind, why):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Mlp(4, name="after")(kind(name="block")(inputs)), name="net")
    with pytest.warns(
        UserWarning, match=f"Not all layers of 'net' can be opened.*'block': .*{why}"
    ):
        opened = tfc.open_layers(model)
    assert {"block", "after_wide"} <= set(inside(opened))
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(opened(x), model(x))
    reasons = tfc.composite_layers(model)
    assert list(reasons) == ["after", "block"]
    assert not reasons["after"]
    assert reasons["block"]


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.blocks = [Block(name="a"), Block(name="b")]
        self.head = layers.Dense(2, name="head")

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return {"logits": self.head(x)}


def test_opens_in_nested_and_subclassed_models():
    x = np.random.default_rng(0).normal(size=(2, 3, 8)).astype("float32")
    inner = Subclassed()
    inner(x)
    inputs = keras.Input((3, 8), name="x")
    nested = keras.Model(inputs, Block(name="c")(inputs), name="nested")
    outer = keras.Model(inputs, inner(nested(inputs)), name="outer")
    for model in (inner, outer):
        opened = tfc.open_layers(model)
        np.testing.assert_array_equal(opened(x)["logits"], model(x)["logits"])
        assert not any(rule_class(la) in (Block, Mlp) for la in flat_layers(opened))


@pytest.mark.slow("every rewrite of a transformer")
def test_every_rewrite_opens_layers(tmp_path):
    model = classifier()
    macs = tfc.summary(model).total.macs
    groups = tfc.channel_groups(model)
    assert {g.producers[0] for g in groups.prunable} >= {"own_attention", "own_mlp_wide"}
    small = tfc.prune_channels(model, 0.5, filters=["own"])
    assert tfc.summary(small).total.macs < macs
    assert small.get_layer("own_mlp_wide").units == 16
    assert small.get_layer("shared_mlp_wide").units == 32

    plan = tfc.low_rank_plan(model, energy=0.5, filters="own/mlp/wide")
    assert [planned.path for planned in plan.factorized] == ["own_mlp_wide"]
    assert "own_mlp_wide_1" in inside(tfc.factorize(model, plan))

    qat = tfc.quantize_aware(model)
    tfc.calibrate(qat, IDS)
    assert tfc.qat_report(qat).floating
    file = converters.convert(qat, tmp_path / "qat.tflite", converters.Int8(), batch_size=1)
    assert not file.float_macs
    converters.verify(qat, file, IDS).raise_if_above(lsb=2.01)  # attention rounds twice
    assert tfc.equalize(model, IDS).name == model.name


def square(x):
    return x * x


class Doubled(layers.Dense):
    """Does something after its activation, which must not be taken out of it."""

    def call(self, x, training=None):
        return 2.0 * super().call(x)


class Holding(layers.Layer):
    def __init__(self, kind, **kwargs):
        super().__init__(**kwargs)
        self.dense = kind(4, square, name="dense")

    def call(self, x):
        return self.dense(x)


@pytest.mark.parametrize("kind", [layers.Dense, Doubled])
def test_a_function_as_activation_becomes_operations_where_it_comes_last(kind):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Holding(kind, name="block")(inputs))
    opened = tfc.open_layers(model)
    kinds = [type(operation).__name__ for operation in opened.operations]
    assert ("Multiply" in kinds) == (kind is layers.Dense)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(opened(x), model(x))
