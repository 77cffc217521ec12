"""Files on TensorFlow Lite Micro: what it answers is what LiteRT's reference kernels answer.

It runs on this machine, in a process of its own: it aborts where it cannot go on.
"""

import importlib.util
import os
import subprocess
import sys

import flatbuffers
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers

from tests.support.helpers import need
from tfcompress import converters, edge
from tfcompress.converters.passes.flatbuffer import IDENTIFIER, pack, unpack

IMAGES = np.random.default_rng(0).normal(size=(8, 16, 16, 3)).astype("float32")
PROGRAM = """
import sys
import numpy as np
from tflite_micro.python.tflite_micro import runtime

rows = np.load(sys.argv[1])
results = {}
for path in sys.argv[3:]:
    interpreter = runtime.Interpreter.from_file(path)
    results[path] = []
    for row in rows:
        interpreter.set_input(row[None], 0)
        interpreter.invoke()
        results[path].append(interpreter.get_output(0)[0])
np.savez(sys.argv[2], **results)
"""


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3), name="image")
    y = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False, name="stem")(image)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    z = layers.DepthwiseConv2D(3, padding="same", activation="relu6")(y)
    y = layers.Add()([y, layers.Conv2D(16, 1, name="point")(z)])
    y = layers.Concatenate()([y, layers.MaxPooling2D(3, 1, "same")(y)])
    y = layers.Dense(256, "relu", name="large")(layers.Flatten()(layers.AveragePooling2D(2)(y)))
    return keras.Model(image, layers.Dense(10, "softmax", name="head")(y))


def on_micro(folder, files):
    """Run files on images one by one."""
    need(
        importlib.util.find_spec("tflite_micro"),
        "no tflite-micro, which has wheels for Linux on x86-64 only; it is in the extra `mcu`",
    )
    np.save(folder / "x.npy", IMAGES)
    command = [sys.executable, "-c", PROGRAM, folder / "x.npy", folder / "y.npz", *files]
    done = subprocess.run(
        [os.fspath(part) for part in command],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with np.load(folder / "y.npz") as found:
        return [found[os.fspath(file)] for file in files]


def beside_the_tables(content):
    """The same file with each constant of 1,000 bytes and more after the tables."""
    model = unpack(content)
    large = [b for b in model.buffers if b.data is not None and len(b.data) >= 1000]
    data = [np.asarray(b.data).tobytes() for b in large]
    for buffer, part in zip(large, data, strict=True):
        buffer.data, buffer.offset, buffer.size = None, 2, len(part)
    for _ in range(2):  # the second time with the length that the tables have
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
        found = bytes(builder.Output())
        for buffer, part in zip(large, data, strict=True):
            found += bytes(-len(found) % 16)
            buffer.offset = len(found)
            found += part
    assert large
    return found


def test_files_answer_the_same_on_tensorflow_lite_micro(net, tmp_path):
    wanted = {
        "float32": converters.Float32(),
        "int8": converters.Int8(IMAGES),
        "int16x8": converters.Int16x8(IMAGES),
        "int4": converters.Int4Weights(IMAGES, keep="large|head", rounding="nearest"),
    }
    paths = {tmp_path / f"{name}.tflite": precision for name, precision in wanted.items()}
    files = converters.convert_all(net, paths, batch_size=1)
    assert "int4" in {tensor.dtype for tensor in converters.inspect(files[3]).tensors}
    for file, found in zip(files, on_micro(tmp_path, files), strict=True):
        reference = edge.Runner(file, "reference")(IMAGES)
        # Bit for bit, but for a step of the softmax table of 16 bits.
        limit = 2 / 32768 if "int16" in file.path.name else 0
        np.testing.assert_allclose(found, reference, atol=limit, rtol=0, err_msg=str(file))


def test_constants_beside_the_tables_are_read_and_packed_among_them(net, tmp_path):
    path, outside, inside = (tmp_path / f"{name}.tflite" for name in ("a", "outside", "inside"))
    converters.convert(net, path, batch_size=1)
    outside.write_bytes(beside_the_tables(path.read_bytes()))
    inside.write_bytes(pack(unpack(outside.read_bytes())))
    buffers = [
        schema.ModelT.InitFromPackedBuf(p.read_bytes(), 0).buffers for p in (outside, inside)
    ]
    assert [any(b.offset > 1 for b in part) for part in buffers] == [True, False]
    right = edge.Runner(path, "reference")(IMAGES)
    for file in (outside, inside):
        np.testing.assert_array_equal(edge.Runner(file, "reference")(IMAGES), right)
    assert converters.inspect(outside).constant_bytes == converters.inspect(inside).constant_bytes
    made = converters.quantize(outside, tmp_path / "q.tflite", converters.Int8(IMAGES), strict=True)
    assert (
        made.path.read_bytes()
        == converters.quantize(
            path, tmp_path / "p.tflite", converters.Int8(IMAGES)
        ).path.read_bytes()
    )
    [found] = on_micro(tmp_path, [inside])
    np.testing.assert_array_equal(found, right)
