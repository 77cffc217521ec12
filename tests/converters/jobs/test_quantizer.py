"""The quantizer keeps to TFLite's specification: https://ai.google.dev/edge/litert/conversion."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tests.support.float_files import float_file, main_graph, ops_of
from tfcompress import converters
from tfcompress.converters.jobs.quantizer import quantize
from tfcompress.converters.jobs.ranges import give_range
from tfcompress.converters.jobs.tensor_values import inputs_of
from tfcompress.converters.passes.flatbuffer import pack

RNG = np.random.default_rng(0)
CONV, DENSE = (RNG.normal(size=shape).astype("float32") for shape in ((3, 3, 2, 4), (4, 3)))
CONV[..., 1] *= 20  # channels of uneven sizes
BIASES = {"CONV_2D": RNG.normal(size=4), "FULLY_CONNECTED": RNG.normal(size=3)}
RANGES = {"x": (-1.5, 2.5), "CONV_2D": (0.0, 6.0), "MEAN": (0.0, 4.0), "FULLY_CONNECTED": (-9, 5)}
KERNELS = {
    "CONV_2D": CONV.transpose(3, 0, 1, 2).reshape(4, -1),
    "FULLY_CONNECTED": DENSE.T,
}


def net(x):
    y = tf.nn.conv2d(x, CONV, 1, "SAME") + BIASES["CONV_2D"].astype("float32")
    y = tf.reduce_mean(tf.nn.relu(y), (1, 2))
    return tf.matmul(y, DENSE) + BIASES["FULLY_CONNECTED"].astype("float32")


@pytest.fixture(scope="module")
def measured():
    """A float file with ranges."""
    graph = main_graph(float_file(net, x=(1, 5, 5, 2)))
    give_range(graph, inputs_of(graph.model)["x"], *RANGES["x"])
    for node in graph.tables.operators:
        give_range(graph, int(node.outputs[0]), *RANGES[graph.op(node)])
    return pack(graph.model)


def multiplying(graph):
    return {graph.op(node): node for node in graph.tables.operators if graph.op(node) in KERNELS}


def scale_of(graph, index):
    return np.asarray(graph[index].quantization.scale, np.float64)


@pytest.mark.parametrize("per_channel_dense", [True, False])
def test_weights_and_biases_follow_the_specification(measured, per_channel_dense):
    graph = main_graph(quantize(measured, per_channel_dense=per_channel_dense))
    for op, node in multiplying(graph).items():
        data, kernel, bias = map(int, node.inputs)
        weights = KERNELS[op].astype(np.float64)
        largest = np.abs(weights).max(1)
        if op == "FULLY_CONNECTED" and not per_channel_dense:
            largest = largest.max(keepdims=True)
        # Symmetric, from -127 to 127, a scale to each output channel.
        np.testing.assert_allclose(scale_of(graph, kernel), largest / 127, rtol=1e-6)
        assert not np.any(graph[kernel].quantization.zeroPoint)
        steps = weights / scale_of(graph, kernel)[:, None]
        # Half a step, and what float32 adds to it.
        found = graph.array(kernel).reshape(weights.shape)
        np.testing.assert_allclose(found, steps, atol=0.5001, rtol=0)
        # Biases: int32 in steps of input times kernel.
        unit = scale_of(graph, data) * scale_of(graph, kernel)
        np.testing.assert_allclose(scale_of(graph, bias), unit, rtol=1e-6)
        assert graph.array(bias).dtype == np.int32
        found = graph.array(bias) * unit
        np.testing.assert_allclose(found, BIASES[op], atol=0.51 * unit.max(), rtol=1e-6)


def activation_scales(graph):
    """Return scale, zero point and type of the tensors that `RANGES` names, and of no other."""
    nodes = {graph.op(node): node for node in graph.tables.operators}
    tensors = {op: int(nodes[op].outputs[0]) for op in RANGES if op in nodes}
    tensors["x"] = int(nodes["CONV_2D"].inputs[0])
    read = {name: graph[index] for name, index in tensors.items()}
    return {
        name: (float(t.quantization.scale[0]), int(t.quantization.zeroPoint[0]), t.type)
        for name, t in read.items()
    }


def test_activations_of_8_bits_follow_the_specification(measured):
    found = activation_scales(main_graph(quantize(measured)))
    for name, (low, high) in RANGES.items():
        scale, zero, dtype = found[name]
        assert scale == pytest.approx((high - low) / 255, rel=1e-6), name
        assert zero == round(-128 - low / scale), name
        assert dtype == schema.TensorType.INT8


def test_activations_of_16_bits_are_symmetric(measured):
    graph = main_graph(quantize(measured, bits=16))
    found = activation_scales(graph)
    for name, (low, high) in RANGES.items():
        scale, zero, dtype = found[name]
        assert scale == pytest.approx(max(-low, high) / 32767, rel=1e-6), name
        assert (zero, dtype) == (0, schema.TensorType.INT16)
    for node in multiplying(graph).values():
        assert graph.array(int(node.inputs[1])).dtype == np.int8
        assert graph.array(int(node.inputs[2])).dtype == np.int64


@pytest.mark.parametrize(
    ("types", "bits"),
    [(("float32", "int8"), 8), (("int8", "float32"), 8), (("uint8", "uint8"), 8),
     (("int16", "int16"), 16)],
)  # fmt: skip
def test_inputs_and_outputs_have_the_types_asked_for(measured, types, bits):
    graph = main_graph(quantize(measured, *types, bits=bits))
    border = int(graph.tables.inputs[0]), int(graph.tables.outputs[0])
    wanted = tuple(getattr(schema.TensorType, name.upper()) for name in types)
    assert tuple(graph[index].type for index in border) == wanted


def test_ops_that_are_to_stay_in_float_do(measured):
    graph = main_graph(measured)
    name = graph.name(int(multiplying(graph)["FULLY_CONNECTED"].outputs[0]))
    made = main_graph(quantize(measured, kept_float=[name]))
    dense, conv = (multiplying(made)[op] for op in ("FULLY_CONNECTED", "CONV_2D"))
    assert made[int(dense.outputs[0])].type == schema.TensorType.FLOAT32
    assert made[int(conv.outputs[0])].type == schema.TensorType.INT8
    assert "DEQUANTIZE" in ops_of(made)


@pytest.mark.parametrize("bits", [8, 16])
def test_without_tensorflow_it_says_what_to_install(measured, bits, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'tfcompress\[tensorflow\]'"):
        quantize(measured, bits=bits)


# The package as a child process has it, under its private name.
PROGRAM = """
import importlib, pathlib, sys, types

package = types.ModuleType("_converters")
package.__path__ = [sys.argv[1]]
sys.modules[package.__name__] = package
quantize = importlib.import_module("_converters.jobs.quantizer").quantize
pathlib.Path(sys.argv[3]).write_bytes(quantize(pathlib.Path(sys.argv[2]).read_bytes()))
print(*(name for name in ("tfcompress", "keras", "tensorflow") if name in sys.modules))
"""


def test_int8_needs_neither_keras_nor_the_whole_of_tensorflow(measured, tmp_path):
    given, made = tmp_path / "float.tflite", tmp_path / "int8.tflite"
    given.write_bytes(measured)
    folder = Path(converters.__file__).parent
    command = [sys.executable, "-P", "-c", PROGRAM, folder, given, made]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    assert made.read_bytes() == quantize(measured)
