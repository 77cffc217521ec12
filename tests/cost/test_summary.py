import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from tests.zoo.architectures import ARCHITECTURES, BEGINNINGS, NAMES
from tfcompress.cost.macs import count_macs
from tfcompress.cost.summary import summary
from tfcompress.quantization.quantize import quantize_aware
from tfcompress.quantization.scheme import QuantizationScheme


def model_of(layer, *shape, **kwargs):
    inputs = keras.Input(shape, **kwargs)
    return keras.Model(inputs, layer(inputs))


# Layer, shape of a sample, and its multiply-accumulates by hand.
HAND = [
    (layers.Dense(4), (8,), 8 * 4),
    (layers.Dense(16), (12, 8), 12 * 8 * 16),
    (layers.EinsumDense("abc,cde->abde", (None, 2, 5)), (12, 8), 12 * 8 * 2 * 5),
    (layers.EinsumDense("...x,xy->...y", (7,)), (3, 4, 8), 3 * 4 * 8 * 7),
    (layers.Conv1D(16, 3), (12, 8), 10 * 3 * 8 * 16),
    (layers.Conv1D(16, 3, strides=2, padding="causal"), (12, 8), 6 * 3 * 8 * 16),
    (layers.Conv2D(8, 3, strides=2, padding="same"), (16, 16, 3), 8 * 8 * 9 * 3 * 8),
    (layers.Conv2D(8, (3, 5), dilation_rate=2), (16, 16, 3), 12 * 8 * 15 * 3 * 8),
    # Sizes that the dilation does not divide.
    (layers.Conv1D(16, 3, dilation_rate=2, padding="causal"), (9, 8), 9 * 3 * 8 * 16),
    (layers.Conv2D(8, 3, dilation_rate=2), (9, 9, 3), 5 * 5 * 9 * 3 * 8),
    (layers.Conv3D(8, 2, dilation_rate=3), (5, 6, 7, 2), 2 * 3 * 4 * 8 * 2 * 8),
    (layers.DepthwiseConv2D(3, dilation_rate=2), (9, 9, 6), 5 * 5 * 9 * 6),
    (layers.Conv2D(8, 3, groups=2), (16, 16, 4), 14 * 14 * 9 * 2 * 8),
    (layers.Conv3D(8, 3), (6, 8, 9, 2), 4 * 6 * 7 * 27 * 2 * 8),
    (layers.Conv1DTranspose(5, 3, strides=2), (6, 4), 6 * 4 * 3 * 5),
    (layers.Conv2DTranspose(5, 3, strides=2, padding="same"), (8, 8, 4), 64 * 4 * 9 * 5),
    (layers.Conv3DTranspose(5, 2, strides=2), (3, 4, 5, 2), 60 * 2 * 8 * 5),
    (layers.DepthwiseConv1D(3), (12, 8), 10 * 3 * 8),
    (layers.DepthwiseConv2D(3, padding="same"), (16, 16, 6), 16 * 16 * 9 * 6),
    (layers.DepthwiseConv2D(3, 2, depth_multiplier=2), (16, 16, 6), 7 * 7 * 9 * 6 * 2),
    (layers.DepthwiseConv2D(3, dilation_rate=2), (16, 16, 6), 12 * 12 * 9 * 6),
    (layers.SeparableConv1D(16, 3), (12, 8), 10 * (3 * 8 + 8 * 16)),
    (layers.SeparableConv2D(16, 3, 2), (16, 16, 6), 7 * 7 * (9 * 6 + 6 * 16)),
    (layers.SimpleRNN(16), (12, 8), 12 * 16 * (8 + 16)),
    (layers.LSTM(16), (12, 8), 12 * 4 * 16 * (8 + 16)),
    (layers.LSTM(16, unroll=True), (12, 8), 12 * 4 * 16 * (8 + 16)),
    (layers.LSTM(16, return_sequences=True, go_backwards=True), (12, 8), 12 * 4 * 16 * 24),
    (layers.GRU(16), (12, 8), 12 * 3 * 16 * (8 + 16)),
    (layers.GRU(16, reset_after=False), (12, 8), 12 * 3 * 16 * (8 + 16)),
    (layers.Bidirectional(layers.LSTM(16)), (12, 8), 2 * 12 * 4 * 16 * (8 + 16)),
    (layers.ConvLSTM2D(5, 3, padding="same"), (4, 6, 6, 2), 4 * 36 * 9 * 4 * 5 * (2 + 5)),
    (layers.TimeDistributed(layers.Conv2D(8, 3)), (5, 16, 16, 3), 5 * 14 * 14 * 9 * 3 * 8),
    (layers.Embedding(50, 16), (12,), 0),
    (layers.BatchNormalization(), (16, 16, 3), 0),
    (layers.LayerNormalization(), (12, 8), 0),
    (layers.AveragePooling2D(2), (16, 16, 3), 0),
    (layers.UpSampling2D(interpolation="bilinear"), (16, 16, 3), 0),
    (layers.Lambda(lambda t: t * 2.0), (8,), 0),
]


@pytest.mark.parametrize(("layer", "shape", "macs"), HAND, ids=lambda value: str(value))
def test_macs_by_hand(layer, shape, macs):
    assert summary(model_of(layer, *shape)).total.macs == macs


def test_attention_by_hand():
    x = keras.Input((12, 8))
    context = keras.Input((20, 6))
    attention = layers.MultiHeadAttention(2, 4, value_dim=5)
    result = summary(keras.Model([x, context], attention(x, context)))
    macs = {layer.path.rpartition("/")[2]: layer.macs for layer in result.layers}
    assert macs["query"] == 12 * 8 * 2 * 4
    assert macs["key"] == 20 * 6 * 2 * 4
    assert macs["value"] == 20 * 6 * 2 * 5
    assert macs["attention_output"] == 12 * 2 * 5 * 8
    # Scores and their product with the values: no weights, so they are the layer's own.
    assert macs[attention.name] == 2 * 12 * 20 * 4 + 2 * 12 * 20 * 5
    assert result.grouped()[-1].macs == sum(macs.values())


def test_raw_operations_are_the_models_own():
    a, b = keras.Input((5, 3, 4)), keras.Input((5, 4, 7))
    model = keras.Model([a, b], [ops.matmul(a, b), ops.einsum("...ij,...jk->...ik", a, b)])
    assert {row.path: row.macs for row in summary(model).layers if row.macs} == {
        model.name: 2 * 5 * 3 * 4 * 7
    }


@pytest.mark.parametrize(
    ("name", "published", "tolerance"),
    [
        # Sandler et al. 2018, table 4: "300M". Published counts are rounded.
        ("MobileNetV2", 300e6, 0.005),
        # Zoph et al. 2018, table 2: "564M".
        pytest.param("NASNetMobile", 564e6, 0.001, marks=pytest.mark.large),
        # He et al. 2015, table 1: "3.8 x 10^9"; Keras' ResNet50 is that one, which strides in the
        # first 1x1 convolution of a stage. (The later v1.5, striding in the 3x3, has 4.1.)
        pytest.param("ResNet50", 3.8e9, 0.02, marks=pytest.mark.slow("a large architecture")),
        # 15.3 for the convolutions, He et al. 2015, and 0.12 for the three dense layers.
        pytest.param("VGG16", 15.47e9, 0.001, marks=pytest.mark.large),
    ],
)
def test_macs_published(name, published, tolerance):
    model = getattr(keras.applications, name)(weights=None)
    assert summary(model).total.macs == pytest.approx(published, rel=tolerance)


# Building one takes long, and its sums have nothing new.
@pytest.mark.parametrize("name", [case for case in NAMES if case.values[0] not in BEGINNINGS])
def test_all_architectures(name):
    model = ARCHITECTURES[name]().model
    weights = [np.asarray(weight.numpy()) for weight in model.weights]
    result = summary(model)
    total = result.total
    assert total.parameters == model.count_params() == sum(w.size for w in weights)
    assert total.zeros == sum((w == 0).sum() for w in weights)
    assert total.bytes == sum(w.nbytes for w in weights)
    assert total.macs > 0
    assert len({row.path for row in result.layers}) == len(result.layers)
    assert json.loads(json.dumps(result.to_dict()))["total"]["macs"] == total.macs
    lines = str(result).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) < 100
    for grouped in (result.grouped(1), result.grouped(2)):
        for field in ("parameters", "zeros", "macs", "bytes"):
            assert sum(getattr(row, field) for row in grouped) == getattr(total, field)


def test_a_shared_layer_costs_macs_per_call_but_parameters_once():
    # The second call opens the scope "twin_1" in the graph, as does the other layer of that name.
    twin, other = layers.Dense(8, name="twin"), layers.Dense(8, name="twin_1")
    x = keras.Input((8,))
    result = summary(keras.Model(x, other(twin(twin(x)))))
    rows = {row.path: row for row in result.layers}
    assert (rows["twin"].parameters, rows["twin"].macs) == (72, 2 * 64)
    assert (rows["twin_1"].parameters, rows["twin_1"].macs) == (72, 64)


def test_what_the_outputs_do_not_need_is_not_counted():
    unused = layers.Lambda(lambda t: (ops.matmul(t, ops.ones((8, 99))), t)[1])
    assert summary(model_of(unused, 8)).total.macs == 0


def test_zeros_and_bytes_are_those_of_the_moment():
    model = keras.Sequential([keras.Input((10,)), layers.Dense(10, name="a", dtype="float16")])
    assert model.layers[0].kernel.dtype == "float16"
    kernel = np.ones((10, 10))
    kernel[:8] = 0
    model.layers[0].kernel.assign(kernel)
    row = summary(model).grouped()[-1]
    assert (row.path, row.zeros, row.parameters, row.bytes) == ("a", 80 + 10, 110, 220)
    assert row.sparsity == 90 / 110


def test_unknown_sizes_give_no_number():
    model = model_of(layers.Conv2D(8, 3, padding="same"), None, None, 3)
    result = summary(model)
    assert result.total.macs is None
    assert " ? " in str(result)
    assert result.to_dict()["total"]["macs"] is None
    known = summary(model, inputs=np.zeros((2, 10, 12, 3), "float32"))
    assert known.total.macs == 10 * 12 * 9 * 3 * 8
    assert summary(model_of(layers.LSTM(4), None, 8)).total.macs is None


def test_a_fixed_batch_is_divided_out():
    model = model_of(layers.LSTM(16, stateful=True), 12, 8, batch_size=5)
    assert summary(model).total.macs == 12 * 4 * 16 * (8 + 16)


class Twice(keras.Model):
    """Two arguments, and control flow, which no functional graph shows."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps
        self.dense = layers.Dense(8, name="dense")

    def call(self, first, second):
        x = self.dense(first) + self.dense(second)
        if self.steps is None:
            return ops.while_loop(lambda t: ops.sum(t) < 9.0, lambda t: (self.dense(t),), (x,))[0]
        return ops.while_loop(
            lambda t: ops.sum(t) < 9.0, lambda t: (self.dense(t),), (x,), self.steps
        )[0]


@pytest.mark.parametrize(("steps", "macs"), [(5, (2 + 5) * 64), (None, None)])
def test_subclassed_model_with_a_loop(steps, macs):
    model = Twice(steps)
    x = np.ones((3, 8), "float32")
    model(x, x)
    with pytest.raises(ValueError, match="missing a required argument: 'second'"):
        summary(model)
    rows = {row.path: row for row in summary(model, inputs=(x, x)).layers}
    assert rows["dense"].parameters == 72
    assert rows["dense"].macs == macs


def test_branches_of_the_same_cost_are_known_and_others_are_not():
    square, thin = np.ones((8, 8), "float32"), np.ones((8, 1), "float32")

    def either(other):
        return layers.Lambda(
            lambda t: ops.cond(ops.sum(t) > 0, lambda: t @ square, lambda: other(t))
        )

    assert summary(model_of(either(lambda t: t @ -square), 8)).total.macs == 64
    assert summary(model_of(either(lambda t: (t @ thin) @ thin.T), 8)).total.macs is None


def test_python_code_in_the_graph_is_unknown():
    square = np.ones((8, 8), "float32")

    class Python(layers.Layer):
        def call(self, x):
            return ops.reshape(tf.py_function(lambda t: t @ square, [x], x.dtype), ops.shape(x))

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape, x.dtype)

    assert summary(model_of(Python(), 8)).total.macs is None


@pytest.mark.parametrize(("mode", "gates"), [("lstm", 4), ("gru", 3)])
def test_the_fused_op_of_a_gpu_counts_as_the_loop(mode, gates):
    class Fused(keras.Model):
        def call(self, x):
            state = tf.zeros((1, 1, 16))
            return tf.raw_ops.CudnnRNNV3(
                input=x,
                input_h=state,
                input_c=state if mode == "lstm" else 0.0,
                params=tf.zeros(9),
                sequence_lengths=[12],
                rnn_mode=mode,
                time_major=False,
            )[0]

    model = Fused()
    model.built = True
    x = keras.KerasTensor((None, 12, 8))  # the op itself runs on a GPU alone, but is only traced
    assert summary(model, inputs=x).total.macs == 12 * gates * 16 * (8 + 16)


def test_leaves_no_trace_in_the_model():
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(4, activity_regularizer="l2"),
            layers.Dropout(0.5, seed=1),
            layers.BatchNormalization(),
        ]
    )
    model(np.ones((2, 8), "float32"))
    before = [variable.numpy() for variable in model.variables]
    summary(model)
    assert all(loss.numpy() >= 0 for loss in model.losses)  # none belongs to a graph
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


@pytest.mark.parametrize(
    ("name", "ranges"),
    [
        ("depthwise-bn-relu6", "moving_average"),
        ("separable 2d", "moving_average"),  # of several ops, computed by the wrapper
        ("MHA", "learned"),
        ("nested model", "learned"),
        ("layer used twice", "moving_average"),
        ("mixed_float16", "moving_average"),
    ],
)
def test_a_quantization_aware_model_costs_what_the_float_one_did(name, ranges):
    model = ARCHITECTURES[name]().model
    fields = ("path", "parameters", "zeros", "macs", "bytes")

    def rows(model):
        # By layers of the model: those inside MultiHeadAttention are computed by its wrapper.
        found = summary(model).grouped()
        return [tuple(getattr(r, f) for f in fields) for r in found if r.parameters or r.macs]

    qat = quantize_aware(model, scheme=QuantizationScheme(ranges=ranges))
    assert rows(qat) == rows(model)


def test_bits_are_those_that_kernels_are_computed_with():
    x = keras.Input((8, 8, 8, 2))
    y = layers.Conv3D(4, 3, name="volume")(x)  # TFLite has no int8 kernel for it
    y = layers.Flatten()(y)
    y = layers.BatchNormalization(name="norm")(layers.Dense(4, name="hidden")(y))
    y = layers.Dense(4, name="half", dtype="float16")(y)
    model = keras.Model(x, layers.Dense(2, name="head", dtype="bfloat16")(y))

    def bits(model):
        return {row.path: row.bits for row in summary(model).layers if row.bits}

    assert bits(model) == {"volume": (32,), "hidden": (32,), "half": (16,), "head": (16,)}
    qat = quantize_aware(model, exclude=["half"])
    assert bits(qat) == {"volume": (32,), "hidden": (8,), "half": (16,), "head": (8,)}
    assert summary(qat).total.bits == (8, 16, 32)
    assert summary(qat).total.to_dict()["bits"] == (8, 16, 32)
    assert "8, 16, 32" in str(summary(qat))
    assert "Bits" not in str(summary(model))


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match=r"'plain' is not built.*call it on a batch"):
        summary(keras.Sequential([layers.Dense(4)], name="plain"))
    with pytest.raises(TypeError, match=r"Expected a keras.Model. Received: 3"):
        summary(3)
    with pytest.raises(ValueError, match="cannot be traced"):
        summary(model_of(layers.Dense(4), 8), inputs=np.zeros((1, 9), "float32"))


def test_a_layer_that_computes_nothing_costs_nothing():
    assert count_macs(model_of(layers.ReLU(), 8)) == {}


def test_deep_models_fold():
    x = keras.Input((8,))
    y = x
    for _ in range(200):
        y = layers.Dense(8)(y)
    result = summary(keras.Model(x, y))
    assert len(result.layers) > 200
    assert "160 smaller layers" in str(result)
    assert result.table(max_rows=300).row_count == 200


def test_weights_that_rounding_loses_and_channels_of_nothing_else_are_shown():
    """Weight decay leaves them behind: not one of them is zero."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.Conv2D(10, 1, name="pointwise"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Flatten(),
            layers.Dense(5, name="head"),
        ]
    )
    assert "lost in rounding" not in str(summary(model))
    for name, index in (
        ("pointwise", np.s_[..., 2:9]),
        ("depthwise", np.s_[..., 3, :]),
        ("head", np.s_[:40]),  # parts of channels
    ):
        kernel = model.get_layer(name).kernel
        array = kernel.numpy()
        array[index] = 1e-12
        kernel.assign(array)
    kernel = model.get_layer("head").kernel
    kernel.assign(np.where(np.arange(5) == 1, 0, kernel.numpy()))
    found = summary(model)
    by_name = {layer.path: (layer.near_zeros, layer.dead_channels) for layer in found.layers}
    assert by_name["pointwise"] == (7 * 4, 7)
    assert by_name["depthwise"] == (9, 1)
    assert by_name["head"] == (40 * 4, 1)
    assert (found.total.near_zeros, found.total.dead_channels) == (28 + 9 + 160, 9)
    assert json.loads(json.dumps(found.to_dict()))["total"]["dead_channels"] == 9
    share = f"{197 / found.total.parameters:.1%} of the parameters are lost in rounding"
    for text in (str(found), str(summary(model, model))):
        assert share in " ".join(text.split())
        assert "All weights of 9 channels" in " ".join(text.split())
