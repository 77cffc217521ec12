"""The converter's function, called without TensorFlow, makes the file that TensorFlow makes."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfcompress as tfc
from tfcompress import converters
from tfcompress.converters.export.saved_model import save_model
from tfcompress.converters.jobs import converter, whole_converter
from tfcompress.converters.jobs.lower import _FLOAT as FLOAT
from tfcompress.converters.passes.flatbuffer import pack, unpack
from tfcompress.model.signature import signature

DYNAMIC = {**FLOAT, "optimizations": ["DEFAULT"]}


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 3), name="x")
    y = layers.BatchNormalization(name="norm")(layers.Conv2D(64, 3)(x))
    y = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.DepthwiseConv2D(3)(y)))
    model = keras.Model(x, layers.Dense(64)(layers.Dense(64, "relu")(y)))
    model.get_layer("norm").moving_variance.assign([2.0] * 64)
    return model


@pytest.fixture(scope="module")
def saved(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("net") / "saved_model"
    save_model(net, signature(net, 1), folder)
    return str(folder)


@pytest.fixture(scope="module")
def trained(net, tmp_path_factory):
    """A SavedModel of quantization-aware training."""
    qat = tfc.quantize_aware(net)
    tfc.calibrate(qat, np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32"))
    folder = tmp_path_factory.mktemp("qat") / "saved_model"
    save_model(qat, signature(qat, 1), folder)
    return str(folder)


def without_notes(content):
    model = unpack(content)
    model.metadata = None
    return pack(model)


@pytest.mark.parametrize(
    ("which", "options"),
    [
        ("saved", FLOAT),
        ("saved", DYNAMIC),
        ("saved", {**DYNAMIC, "per_channel_dense": False}),
        ("trained", DYNAMIC),
        ("trained", {**DYNAMIC, "per_channel_dense": False}),
    ],
    ids=["float", "dynamic", "dynamic, one scale", "trained", "trained, one scale"],
)
def test_the_file_is_that_of_tensorflow(which, options, request):
    """Byte for byte, but for what TensorFlow notes about itself."""
    folder = request.getfixturevalue(which)
    found = converter._by_the_library(folder, options, converter.SERVING)
    wanted = whole_converter.convert(folder, options, None)
    assert without_notes(found) == without_notes(wanted)


def test_equal_constants_are_stored_once(tmp_path):
    x = keras.Input((64,), name="x")
    same = [layers.Dense(64, use_bias=False, name=f"d{i}") for i in range(2)]
    model = keras.Model(x, layers.Add()([layers.ReLU()(same[0](x)), same[1](x)]))
    same[1].kernel.assign(same[0].kernel)
    save_model(model, signature(model, 1), tmp_path / "twins")
    content = converter.convert(str(tmp_path / "twins"), FLOAT)
    assert len(content) < 1.5 * 64 * 64 * 4


def test_what_the_library_refuses_tensorflow_explains(tmp_path):
    def serve(x):
        return {"y": tf.math.betainc(x, x, x)}

    traced = tf.function(serve).get_concrete_function(tf.TensorSpec((2,), name="x"))
    tf.saved_model.save(tf.Module(), str(tmp_path), signatures=traced)
    with pytest.raises(Exception, match=r"(?s)needs custom ops.*Betainc|Betainc"):
        converter.convert(str(tmp_path), FLOAT)


# The package as a child process has it, under its private name. What the library does not do is
# done by TensorFlow in the same process, which must end well: two copies of a library would crash.
PROGRAM = """
import importlib, json, pathlib, sys, types

package = types.ModuleType("_converters")
package.__path__ = [sys.argv[1]]
sys.modules[package.__name__] = package
converter = importlib.import_module("_converters.jobs.converter")
for options in json.loads(sys.argv[3]):
    content = converter.convert(sys.argv[2], options)
    print("tensorflow" in sys.modules, content[4:8].decode())
"""


def test_float_files_are_made_without_importing_tensorflow(saved):
    folder = Path(converters.__file__).parent
    options = json.dumps([FLOAT, DYNAMIC, {**FLOAT, "supported_ops": ["SELECT_TF_OPS"]}])
    command = [sys.executable, "-P", "-c", PROGRAM, folder, saved, options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "TFL3", "False", "TFL3", "True", "TFL3"]
