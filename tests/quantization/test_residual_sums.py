import keras
import numpy as np
import pytest
from keras import layers, ops

import tfcompress as tfc
from tfcompress import converters
from tfcompress.model.graph import nodes
from tfcompress.quantization.residual_sums import residual_sums

LENGTH, WIDTH = 4, 16
X = np.random.default_rng(0).normal(size=(64, LENGTH, WIDTH)).astype("float32")


class OwnNorm(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight((shape[-1],), "ones", name="scale")

    def call(self, x):
        return x * ops.rsqrt(ops.mean(x**2, axis=-1, keepdims=True) + 1e-6) * self.scale


def transformer(norm, first):
    """Blocks that normalize before each branch, or after each sum; one channel is large."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((LENGTH, WIDTH), name="x")
    for i in range(2):
        y = norm(name=f"norm_{i}")(x) if first else x
        y = layers.MultiHeadAttention(2, 8, name=f"attention_{i}")(query=y, value=y)
        x = layers.Add(name=f"sum_{i}")([x, layers.Dropout(0.1)(y)])
        x = x if first else norm(name=f"norm_{i}")(x)
        y = norm(name=f"norm_{i}_1")(x) if first else x
        y = layers.Dense(32, "relu", name=f"wide_{i}")(y)
        y = layers.Dense(WIDTH, name=f"narrow_{i}")(y)
        x = y + x
        x = x if first else norm(name=f"norm_{i}_1")(x)
    x = norm(name="last")(x) if first else x
    model = keras.Model(inputs, layers.Dense(3, name="head")(x), name="net")
    for i in range(2):
        kernel = model.get_layer(f"narrow_{i}").kernel
        kernel.assign(kernel * np.where(np.arange(WIDTH) == 3, 200.0, 1.0))
    return model


@pytest.mark.parametrize("norm", [layers.LayerNormalization, layers.RMSNormalization, OwnNorm])
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_sums_that_normalizations_read_are_found(norm, first):
    model = transformer(norm, first)
    sums = {id(n.operation) for n in nodes(model) if type(n.operation).__name__ == "Add"}
    assert len(sums) == 4
    assert residual_sums(model) == sums


def error(model, expected):
    found = np.asarray(model(X))
    return np.square(found - expected).mean() / expected.var()


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_float_sums_keep_small_channels_and_are_in_the_file_as_reported(first, tmp_path):
    model = transformer(layers.LayerNormalization, first)
    expected = np.asarray(model(X))
    plain = tfc.calibrate(tfc.quantize_aware(model), X)
    even = tfc.equalize(model, X, insert_scales=True)
    qat = tfc.calibrate(tfc.quantize_aware(even, float_sums=True), X)
    # The range of the large channel leaves the others no bits of a sum.
    assert error(qat, expected) < 0.2 * error(plain, expected)

    qat.save(tmp_path / "qat.keras")
    qat = keras.models.load_model(tmp_path / "qat.keras")
    file = converters.convert(qat, tmp_path / "qat.tflite", converters.Int8())
    assert not file.float_macs
    # Where the large channel is near zero, one of its steps that goes the other way moves all.
    converters.verify(qat, file, X).raise_if_above(snr_below=25, mean_lsb=0.5)
    floating = {layer.path: layer.floating for layer in tfc.qat_report(qat).floating}
    for node in nodes(even):
        kind = type(node.operation).__name__
        if kind in ("Add", "LayerScale"):
            assert floating.pop(node.name) == "kept in float on request"
        elif kind == "LayerNormalization":
            assert "squares" in floating.pop(node.name)
    assert not floating
    tensors = converters.inspect(file).tensors
    for op in converters.inspect(file).nodes:
        if op.op == "ADD":
            assert {tensors[out].dtype for out in op.outputs} == {"float32"}


def test_exclude_reaches_operations_by_the_names_of_the_report(tmp_path):
    inputs = keras.Input((8,), name="x")
    left, right = layers.Dense(4, name="left")(inputs), layers.Dense(4, name="right")(inputs)
    total = left * right
    model = keras.Model(inputs, layers.Dense(2, name="head")(total), name="net")
    x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")

    def float_layers(exclude):
        qat = tfc.calibrate(tfc.quantize_aware(model, exclude=exclude), x)
        file = converters.convert(qat, tmp_path / "m.tflite", converters.Int8())
        converters.verify(qat, file, x).raise_if_above(snr_below=40)
        found = converters.inspect(file)
        types = {op.op: found.tensors[op.outputs[0]].dtype for op in found.nodes}
        return types["MUL"], {layer.path for layer in tfc.qat_report(qat).floating}

    [name] = [node.name for node in nodes(model) if type(node.operation).__name__ == "Multiply"]
    assert float_layers(None) == ("int8", set())
    for exclude in ([name], "multiply"):
        assert float_layers(exclude) == ("float32", {name})
    # A function is one of layers.
    assert float_layers(lambda layer: layer.units == 2) == (
        "int8",
        {"head"},
    )
    with pytest.raises(ValueError, match=r"'product' in `exclude`.*multiply"):
        tfc.quantize_aware(model, exclude=["product"])


def test_attention_that_is_called_by_keywords_stays_in_float():
    model = transformer(layers.LayerNormalization, True)
    qat = tfc.calibrate(tfc.quantize_aware(model, exclude="attention"), X)
    assert {"attention_0", "attention_1"} <= {la.path for la in tfc.qat_report(qat).floating}
