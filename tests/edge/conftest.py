"""Tiny .tflite files, made once, and a GPU that is a program (SwiftShader)."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.support.helpers import need
from tfcompress.edge.system.console import captured

CHROMIUM = Path("/usr/lib/chromium")
SWIFTSHADER = {
    "VK_ICD_FILENAMES": str(CHROMIUM / "vk_swiftshader_icd.json"),
    "LD_LIBRARY_PATH": str(CHROMIUM),
}


def kernel(*shape):
    return np.random.default_rng(7).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="session")
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def weights():
    """Of the small CNN: a 3x3 convolution to 4 channels with ReLU, flattened, 8 outputs.

    Dense holds more than the 1024 weights below which the converter quantizes none dynamically.
    """
    generator = np.random.default_rng(1)
    return {
        "conv": generator.normal(size=(3, 3, 1, 4)).astype(np.float32) / 3,
        "conv_bias": generator.normal(size=4).astype(np.float32) / 3,
        "dense": generator.normal(size=(144, 8)).astype(np.float32) / 12,
        "dense_bias": generator.normal(size=8).astype(np.float32),
    }


@pytest.fixture(scope="session")
def files(tmp_path_factory, weights):
    """Path by name; made in this process, since what is under test is what comes after."""
    folder = tmp_path_factory.mktemp("tflite")
    with warnings.catch_warnings(), captured():
        warnings.simplefilter("ignore")
        made = dict(_convert(weights))
    paths = {}
    for name, content in made.items():
        paths[name] = folder / f"{name}.tflite"
        paths[name].write_bytes(content)
    return paths


def _convert(weights):
    import tensorflow as tf

    lite = tf.lite
    ints = lite.OpsSet.TFLITE_BUILTINS_INT8
    ints16 = lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    generator = np.random.default_rng(2)
    # Wider than what the tests feed, so that nothing saturates.
    samples = [generator.normal(0, 1.5, (1, 8, 8, 1)).astype(np.float32) for _ in range(100)]

    def representative():
        return ([sample] for sample in samples)

    def cnn(batch):
        @tf.function(input_signature=[tf.TensorSpec((batch, 8, 8, 1), name="image")])
        def call(image):
            y = tf.nn.conv2d(image, weights["conv"], 1, "VALID")
            y = tf.nn.relu(y + weights["conv_bias"])
            y = tf.reshape(y, (-1, 144))
            return {"logits": y @ weights["dense"] + weights["dense_bias"]}

        return call

    def convert(function, **options):
        module = tf.Module()
        module.call = function
        concrete = function.get_concrete_function()
        converter = lite.TFLiteConverter.from_concrete_functions([concrete], module)
        for name, value in options.items():
            setattr(converter, name, value)
        return converter.convert()

    default = {"optimizations": [lite.Optimize.DEFAULT]}
    calibrated = {**default, "representative_dataset": representative}

    def io(dtype):
        return {"inference_input_type": dtype, "inference_output_type": dtype}

    halves = lite.TargetSpec(supported_types=[tf.float16])
    for_ints = {**calibrated, "target_spec": lite.TargetSpec(supported_ops=[ints])}
    for_16 = {**calibrated, "target_spec": lite.TargetSpec(supported_ops=[ints16])}
    yield "float32", convert(cnn(None))
    yield "fixed", convert(cnn(1))
    yield "float16", convert(cnn(1), **default, target_spec=halves)
    yield "dynamic", convert(cnn(1), **default)
    yield "int8", convert(cnn(None), **for_ints, **io(tf.int8))
    yield "uint8", convert(cnn(None), **for_ints, **io(tf.uint8))
    yield "int8_float", convert(cnn(None), **for_ints)
    yield "int8_fixed", convert(cnn(1), **for_ints)
    yield "int16", convert(cnn(None), **for_16, **io(tf.int16))

    @tf.function(input_signature=[tf.TensorSpec((None, 4, 4), name="x")])
    def flattened(x):
        return {"y": tf.reshape(x, (tf.shape(x)[0], 16)) @ kernel(16, 2)}

    # As Keras' Flatten: with a dynamic batch, the shape is computed while the model runs.
    yield "shapes", convert(flattened)

    def image_function(body):
        return tf.function(body, input_signature=[tf.TensorSpec((1, 8, 8, 4), name="x")])

    filters = kernel(3, 3, 4, 4)

    def conv(x):
        return tf.nn.conv2d(x, filters, 1, "SAME")

    def onehot(x):
        return {"y": conv(tf.one_hot(tf.argmax(x, -1, output_type=tf.int32), 4))}

    def split(x):
        return {"y": conv(tf.reverse_sequence(conv(x), [3], 1))}

    # The GPU delegate computes this one wrongly; and this one it must share with the CPU.
    yield "onehot", convert(image_function(onehot))
    yield "split", convert(image_function(split))

    # More than the 1024 weights below which the converter quantizes none dynamically.
    wide = kernel(3, 3, 16, 16)

    @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 16), name="x")])
    def transposed(x):
        return {"y": tf.nn.conv2d_transpose(x, wide, (1, 16, 16, 16), 2)}

    def images():
        return ([generator.normal(size=(1, 8, 8, 16)).astype(np.float32)] for _ in range(8))

    yield "transposed", convert(transposed)
    yield "transposed_dynamic", convert(transposed, **default)
    yield "transposed_int8", convert(transposed, **{**for_ints, "representative_dataset": images})

    @tf.function(
        input_signature=[
            tf.TensorSpec((2, 3), name="x_10"),
            tf.TensorSpec((2, 3), name="x_2"),
        ]
    )
    def two(x_10, x_2):
        return {"y_10": x_10 - x_2, "y_2": x_10 * 2.0}

    yield "two", convert(two)

    @tf.function(input_signature=[tf.TensorSpec((2, 3), name="x")])
    def reduced(x):
        return {"mean": tf.reduce_mean(x, 0), "same": x + 1.0}

    yield "reduced", convert(reduced)

    @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.int32, name="ids")])
    def embedding(ids):
        return {"vectors": tf.gather(kernel(6, 3), ids)}

    yield "embedding", convert(embedding)

    @tf.function(
        input_signature=[
            tf.TensorSpec((None,), tf.string, name="words"),
            tf.TensorSpec((None,), tf.int32, name="ids"),
        ]
    )
    def words(words, ids):
        return {"picked": tf.gather(words, ids)}

    yield "words", convert(words)

    # The scale of the softmax's input is 0, and the reference kernels abort.
    @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 1), name="x")])
    def dead(x):
        return {"y": tf.nn.softmax(tf.reshape(x, (1, 64)) @ tf.zeros((64, 4)))}

    yield "dead", convert(dead, **for_ints)

    class Total(tf.Module):
        def __init__(self):
            super().__init__()
            self.total = tf.Variable(tf.zeros((1, 3)))

        @tf.function(input_signature=[tf.TensorSpec((1, 3), name="x")])
        def add(self, x):
            self.total.assign_add(x)
            return {"total": self.total.read_value()}

        @tf.function(input_signature=[])
        def clear(self):
            self.total.assign(tf.zeros((1, 3)))
            return {"total": self.total.read_value()}

    class Pair(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 3), name="x")])
        def add(self, x):
            return {"y": x + 1.0}

        @tf.function(input_signature=[tf.TensorSpec((None, 3), name="x")])
        def times(self, x):
            return {"y": x * 3.0}

    pair = Pair()
    import tempfile

    with tempfile.TemporaryDirectory() as saved:
        tf.saved_model.save(pair, saved, signatures={"add": pair.add, "times": pair.times})
        yield "signatures", lite.TFLiteConverter.from_saved_model(saved).convert()
    total = Total()
    with tempfile.TemporaryDirectory() as saved:
        tf.saved_model.save(total, saved, signatures={"add": total.add, "clear": total.clear})
        converter = lite.TFLiteConverter.from_saved_model(saved)
        converter.experimental_enable_resource_variables = True
        yield "total", converter.convert()


@pytest.fixture
def software_gpu(monkeypatch):
    """Makes child processes find a GPU: SwiftShader, which is a program on the CPU."""
    need(
        all(
            (CHROMIUM / name).exists()
            for name in ("libvulkan.so.1", "libvk_swiftshader.so", "vk_swiftshader_icd.json")
        ),
        "a software Vulkan driver is missing; install with: apt-get install chromium-common",
    )
    for name, value in SWIFTSHADER.items():
        monkeypatch.setenv(name, value)
    return dict(os.environ)


@pytest.fixture
def no_gpu(monkeypatch, tmp_path):
    """Hides every GPU from child processes."""
    nothing = tmp_path / "none.json"
    nothing.write_text("{}")
    monkeypatch.setenv("VK_ICD_FILENAMES", str(nothing))
    monkeypatch.setenv("VK_DRIVER_FILES", str(nothing))
