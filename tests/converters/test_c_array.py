"""C++ source that holds a file: compiled, it has the file's bytes, aligned, and all its ops."""

import re
import shutil
import subprocess

import keras
import pytest

from tests.converters.test_on_microcontroller import beside_the_tables
from tests.support.helpers import need
from tfcompress import converters
from tfcompress.edge.system.tflite import PROBE

# Stands for TensorFlow Lite Micro: it counts what is added, and takes no more than there is room.
RESOLVER = """
#pragma once
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
#define TF_LITE_ENSURE_STATUS(a) if ((a) != kTfLiteOk) return kTfLiteError
namespace tflite {
template <unsigned int most> struct MicroMutableOpResolver {
  unsigned int added = 0;
  TfLiteStatus Add() { return ++added > most ? kTfLiteError : kTfLiteOk; }
  METHODS
};
}
"""
MAIN = """
#include <cstdint>
#include <cstdio>
#include "my-net.h"
int main() {
  MyNetOpResolver resolver;
  if (AddMyNetOps(resolver) != kTfLiteOk) return 1;
  if (reinterpret_cast<std::uintptr_t>(g_my_net) % 16) return 2;
  std::fwrite(g_my_net, 1, g_my_net_len, stdout);
}
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Conv2D(4, 3, padding="same"),
        keras.layers.DepthwiseConv2D(3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(10, "softmax"),
    ]
    model = keras.Sequential([keras.Input((8, 8, 2), name="x"), *layers])
    path = tmp_path_factory.mktemp("net") / "net.tflite"
    return converters.convert(model, path, batch_size=1).path


def test_compiled_source_holds_the_file_and_adds_its_ops(net, tmp_path):
    need(shutil.which("g++"), "no C++ compiler; install with: apt-get install g++")
    header, source = converters.to_c_array(net, tmp_path / "my-net.cc")
    added = re.findall(r"resolver\.(Add\w+)\(\)", header.read_text())
    assert added == ["AddConv2D", "AddDepthwiseConv2D", "AddFullyConnected", "AddMaxPool2D",
                     "AddReshape", "AddSoftmax"]  # fmt: skip
    micro = tmp_path / "tensorflow/lite/micro"
    micro.mkdir(parents=True)
    methods = " ".join(f"TfLiteStatus {name}() {{ return Add(); }}" for name in added)
    (micro / "micro_mutable_op_resolver.h").write_text(RESOLVER.replace("METHODS", methods))
    (tmp_path / "main.cc").write_text(MAIN)
    command = ["g++", "-std=c++17", "-Wall", "-Werror", "-I.", "main.cc", source.name, "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, check=True)
    assert done.stdout == net.read_bytes()


def test_names_of_the_resolver_methods():
    from tfcompress.converters.c_array import _method

    names = {"CONV_2D": "Conv2D", "BATCH_MATMUL": "BatchMatMul", "PADV2": "PadV2", "RELU6": "Relu6",
             "L2_POOL_2D": "L2Pool2D", "SELECT_V2": "SelectV2", "ethos-u": "EthosU",
             "BATCH_TO_SPACE_ND": "BatchToSpaceNd"}  # fmt: skip
    assert {op: _method(op) for op in names} == names


def test_constants_outside_of_the_tables_are_put_inside(net, tmp_path):
    outside = tmp_path / "outside.tflite"
    outside.write_bytes(beside_the_tables(net.read_bytes()))
    _, source = converters.to_c_array(outside, tmp_path / "inside")
    content = bytes(int(byte, 16) for byte in re.findall(r"0x(..),", source.read_text()))
    (tmp_path / "inside.tflite").write_bytes(content)
    inside, whole = (converters.inspect(p) for p in (tmp_path / "inside.tflite", net))
    assert inside.constant_bytes == whole.constant_bytes
    assert len(content) < outside.stat().st_size


def test_refuses_what_it_cannot_write_before_it_writes(tmp_path):
    with pytest.raises(ValueError, match=r"must end in .cc or .h"):
        converters.to_c_array(PROBE, tmp_path / "model.c")
    with pytest.raises(ValueError, match="There is no folder"):
        converters.to_c_array(PROBE, tmp_path / "none" / "model.cc")
    model = keras.Sequential([keras.Input((4, 4, 4, 1), name="x"), keras.layers.Conv3D(2, 3)])
    file = converters.convert(model, tmp_path / "m.tflite", batch_size=1)
    with pytest.raises(converters.ConversionError, match="has no op CONV_3D"):
        converters.to_c_array(file, tmp_path / "model.cc")
    assert [path.name for path in tmp_path.iterdir()] == ["m.tflite"]
