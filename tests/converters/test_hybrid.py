"""What is said of dynamic-range files that XNNPACK runs only in part."""

import warnings
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers

from tfcompress import converters, edge
from tfcompress.converters.hybrid import attention_share, depthwise_share, speed_notes


def net(channels):
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(channels, 1),
            layers.DepthwiseConv2D(3, padding="same", name="depthwise"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ]
    )


def test_depthwise_convolutions_of_a_dynamic_range_file_are_slow_and_said_to_be(tmp_path):
    wanted = {
        tmp_path / "float.tflite": converters.Float32(),
        tmp_path / "dynamic.tflite": converters.DynamicInt8(),
    }
    share = 64 * 9 * 128 / (64 * 3 * 128 + 64 * 9 * 128 + 128 * 4)
    with pytest.warns(UserWarning, match=rf"dynamic.tflite: {share:.0%} of the multiply-acc"):
        plain, dynamic = converters.convert_all(net(128), wanted, batch_size=1)
    assert depthwise_share(converters.inspect(dynamic)) == pytest.approx(share)
    assert depthwise_share(converters.inspect(plain)) == 0
    # That XNNPACK leaves them out is a fact of the runtime, which may change with it.
    assert edge.placement(dynamic).left_behind == {"DEPTHWISE_CONV_2D": 1}
    assert edge.placement(plain).left_behind == {}


def test_small_kernels_stay_float_so_that_nothing_is_said(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        file = converters.convert(net(32), tmp_path / "m.tflite", converters.DynamicInt8())
    assert depthwise_share(converters.inspect(file)) == 0


def file_of(op, activations, weights):
    """An inspection of a file with one op, as far as the notes read it."""
    shapes = {activations: (2, 8, 4), weights: (3, 4)}
    tensors = [SimpleNamespace(dtype=kind, shape=shapes[kind]) for kind in (activations, weights)]
    tensors.append(SimpleNamespace(dtype=activations, shape=(2, 8, 3)))
    node = SimpleNamespace(op=op, inputs=(0, 1), outputs=(2,), options={})
    return SimpleNamespace(tensors=tensors, nodes=[node])


@pytest.mark.parametrize(
    ("op", "activations", "weights", "note"),
    [
        ("CONV_2D", "int16", "int8", "no kernels for activations of 16 bits"),
        ("CONV_2D", "int8", "int4", "smaller and slower"),
        ("FULLY_CONNECTED", "int8", "int4", "as fast as int8 or faster"),
        ("DEQUANTIZE", "int4", "", "slower than a float32 file"),
        ("CONV_2D", "int8", "int8", ""),
        ("FULLY_CONNECTED", "float32", "int4", ""),
    ],
)
def test_speed_notes_say_what_a_type_means(op, activations, weights, note):
    said = speed_notes(file_of(op, activations, weights))
    assert [note in text for text in said] == ([True] if note else [])


@pytest.mark.parametrize(("dtype", "said"), [("int8", 1), ("float32", 0)])
def test_attention_in_int8_is_said_to_be_slow_on_a_cpu(dtype, said):
    product = file_of("BATCH_MATMUL", dtype, dtype)
    assert not speed_notes(product)
    product.nodes.append(SimpleNamespace(op="SOFTMAX", inputs=(0,), outputs=(2,), options={}))
    assert sum("on a CPU, DynamicInt8()" in text for text in speed_notes(product)) == said


def test_the_share_of_attention_is_what_the_file_multiplies(tmp_path):
    """With a convolution that multiplies more, DynamicInt8 is not the advice."""
    x = keras.Input((8, 16))
    y = layers.MultiHeadAttention(2, 8)(x, x)
    small = keras.Model(x, y)
    large = keras.Model(x, layers.Conv1D(64, 8, padding="same")(y))
    data = np.random.default_rng(0).normal(size=(8, 8, 16)).astype("float32")
    products = 8 * 16 * 16 * 4 + 2 * 8 * 8 * 16
    found = {}
    for model in (small, large):
        path = tmp_path / f"{model.name}.tflite"
        file = converters.convert(model, path, converters.Int8(data), batch_size=1)
        found[model] = (attention_share(converters.inspect(file)), file.notes)
        assert converters.verify(model, file, data).notes == file.notes
    assert found[small][0] == 1
    assert "100% of the multiply-accumulates are attention in int8" in " ".join(found[small][1])
    assert found[large][0] == pytest.approx(products / (products + 8 * 16 * 8 * 64))
    assert found[large][1] == ()
