"""Zeros that make the file smaller: on files from the converter, through the public names."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfcompress import converters
from tfcompress.converters import Sparse, sparsify
from tfcompress.edge import Runner


@pytest.fixture(scope="module")
def pruned():
    """90% zeros: single weights, but for the last kernel, where they come in fours."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 8), name="image")
    x = layers.Conv2D(40, 3, padding="same", activation="relu", name="conv")(image)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Conv2DTranspose(24, 3, name="transposed")(x)
    x = layers.Flatten()(x)
    model = keras.Model(image, layers.Dense(64, name="scores")(x), name="pruned")
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            shape = (*kernel.shape[:-1], kernel.shape[-1] // 4, 4)
            keep = rng.random(shape[:-1]) > 0.9 if layer.name == "scores" else None
            if keep is not None:
                keep = np.repeat(keep, 4, axis=-1)
            else:
                keep = rng.random(kernel.shape) > 0.9
            layer.set_weights([kernel * keep, rng.normal(size=bias.shape)])
    return model


@pytest.fixture(scope="module")
def samples():
    return np.random.default_rng(2).normal(size=(20, 8, 8, 8)).astype("float32")


@pytest.fixture(scope="module")
def dense(pruned, samples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    wanted = {
        folder / "float32.tflite": converters.Float32(),
        folder / "float16.tflite": converters.Float16(),
        folder / "int8.tflite": converters.Int8(calibration=samples),
        folder / "dynamic.tflite": converters.DynamicInt8(),
    }
    # Each score differs so little from sample to sample.
    with pytest.warns(UserWarning, match=r"int8\.tflite.*keeps 0% of its variation"):
        files = converters.convert_all(pruned, wanted)
    return {file.path.stem: file.path for file in files}


@pytest.fixture(scope="module")
def sparse(dense):
    return {
        name: sparsify(dense[name], dense[name].with_name(f"{name}_sparse.tflite"))
        for name in ("float32", "float16", "int8")
    }


@pytest.mark.parametrize("delegate", ["xnnpack", "reference"])
@pytest.mark.parametrize("name", ["float32", "float16", "int8"])
def test_sparsify_keeps_the_outputs(dense, sparse, samples, name, delegate):
    expected = Runner(dense[name], delegate)(samples)
    np.testing.assert_array_equal(Runner(sparse[name], delegate)(samples), expected)


@pytest.mark.parametrize(("name", "share"), [("float32", 1 / 6), ("float16", 1 / 4), ("int8", 0.4)])
def test_sparsify_makes_a_file_smaller(dense, sparse, name, share):
    found = sparse[name]
    assert found.bytes == found.path.stat().st_size < share * found.bytes_before
    assert found.bytes_before == dense[name].stat().st_size
    assert found.gzip_bytes < found.gzip_bytes_before


def test_sparsify_reports_how_each_weight_is_stored(sparse):
    kernels = {w.name.split("/")[1]: w for w in sparse["float32"].weights}
    assert "blocks of 4" in kernels["scores_1"].encoding
    assert "blocks" not in kernels["conv_1"].encoding
    assert kernels["conv_1"].zeros == pytest.approx(0.9, abs=0.05)
    assert kernels["conv_1"].bytes_before == 4 * 3 * 3 * 8 * 40
    assert kernels["conv_1"].bytes_after < kernels["conv_1"].bytes_before / 4
    text = str(sparse["float32"])
    assert f"{sparse['float32'].bytes:,} bytes" in text
    assert "gzip" in text


def test_sparsify_with_int8_weights_is_smallest_and_close(dense, sparse, samples):
    out = dense["float32"].with_name("int8_weights.tflite")
    small = sparsify(dense["float32"], out, Sparse(int8_weights=True, names=False))
    assert small.bytes < sparse["float32"].bytes / 2
    ops = converters.inspect(out).ops
    assert ops["DENSIFY"] == 4
    assert ops["DEQUANTIZE"] == 3  # TRANSPOSE_CONV keeps float weights
    expected, found = Runner(dense["float32"])(samples), Runner(out)(samples)
    # Each of some 10 live weights of an output is off by half a step of 1/127 at most.
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_sparsify_rejects_a_dynamic_range_file(dense):
    out = dense["dynamic"].with_name("never.tflite")
    with pytest.raises(converters.ConversionError, match="dynamic-range file"):
        sparsify(dense["dynamic"], out)
    assert not out.exists()


def test_sparsify_leaves_a_sparse_file_as_it_is(sparse, tmp_path):
    again = sparsify(sparse["int8"], tmp_path / "again.tflite")
    assert again.path.read_bytes() == sparse["int8"].path.read_bytes()
    assert {w.reason for w in again.weights} == {"it is sparse already"}


def test_sparsify_may_overwrite_its_file(dense, sparse, tmp_path):
    shutil.copy(dense["int8"], tmp_path / "file.tflite")
    sparsify(tmp_path / "file.tflite", tmp_path / "file.tflite")
    assert (tmp_path / "file.tflite").read_bytes() == sparse["int8"].path.read_bytes()


def test_convert_makes_several_files_sparse_at_once(pruned, sparse, tmp_path):
    wanted = {
        tmp_path / "a.tflite": converters.Float32(),
        tmp_path / "b.tflite": converters.Float16(),
    }
    files = converters.convert_all(pruned, wanted, sparse=True)
    for file, name in zip(files, ("float32", "float16"), strict=True):
        assert file.path.read_bytes() == sparse[name].path.read_bytes()
        assert file.sparse.path == file.path
        assert file.bytes == file.sparse.bytes < file.sparse.bytes_before


def test_convert_refuses_sparse_dynamic_range(pruned, tmp_path):
    with pytest.raises(converters.ConversionError, match="no sparse form"):
        converters.convert(pruned, tmp_path / "x.tflite", converters.DynamicInt8(), sparse=True)
    with pytest.raises(TypeError, match="`sparse` must be"):
        converters.convert(pruned, tmp_path / "x.tflite", sparse="yes")
    assert not list(tmp_path.iterdir())


def test_sparsify_keeps_unsafe_graphs_dense(tmp_path):
    image = keras.Input((32, 32, 3), batch_size=1)
    x = layers.ZeroPadding2D(1)(image)
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(x)
    x = layers.Conv2D(512, 1)(x)
    x = layers.Conv2D(16, 3, padding="same")(x)
    model = keras.Model(image, layers.GlobalAveragePooling2D()(x))
    for layer in model.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel * (np.arange(kernel.shape[-1]) % 8 == 0), bias])
    file = converters.convert(model, tmp_path / "x.tflite", sparse=True)
    assert "DENSIFY" not in converters.inspect(file).ops
    assert {w.reason for w in file.sparse.weights} == {
        "XNNPACK on Arm may compute this graph wrongly: see tfcompress check-sparse"
    }
    small = sparsify(file, tmp_path / "int8.tflite", Sparse(int8_weights=True))
    assert "DENSIFY" not in converters.inspect(small).ops
    assert small.bytes < file.bytes / 3


def test_sparsify_rejects_wrong_arguments(dense, tmp_path):
    with pytest.raises(TypeError, match="`int8_weights` must be True or False"):
        Sparse(int8_weights=1)
    with pytest.raises(ValueError, match="`skip_zeros` takes float32"):
        Sparse(skip_zeros=True, int8_weights=True)
    with pytest.raises(TypeError, match="`config` must be"):
        sparsify(dense["int8"], tmp_path / "x.tflite", {"names": False})
    with pytest.raises(ValueError, match="There is no folder"):
        sparsify(dense["int8"], tmp_path / "nowhere" / "x.tflite")


def test_sparsify_takes_files_whose_ops_have_no_outputs(tmp_path):
    """Variables, as in files that listen for a word, and weights that are mostly zero."""

    class Stream(tf.Module):
        def __init__(self):
            super().__init__()
            self.last = tf.Variable(tf.zeros((1, 64)))

        @tf.function(input_signature=[tf.TensorSpec((1, 64), name="x")])
        def step(self, x):
            kernel = np.zeros((64, 64), "float32")
            kernel[::8] = 0.5
            self.last.assign(x @ kernel + 0.5 * self.last)
            return {"y": self.last.read_value()}

    stream = Stream()
    tf.saved_model.save(stream, str(tmp_path / "saved"), signatures={"step": stream.step})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"))
    converter.experimental_enable_resource_variables = True
    dense, small = tmp_path / "dense.tflite", tmp_path / "small.tflite"
    dense.write_bytes(converter.convert())
    assert "ASSIGN_VARIABLE" in converters.inspect(dense).ops
    for config in (Sparse(), Sparse(int8_weights=True)):
        found = sparsify(dense, small, config)
        assert found.bytes < found.bytes_before - 8_000
    before, after = Runner(dense), Runner(small)
    x = np.random.default_rng(0).normal(size=(1, 64)).astype("float32")
    for _ in range(3):  # 0.5 is a power of two, so int8 holds the kernel exactly
        np.testing.assert_allclose(after(x), before(x), rtol=1e-6)
