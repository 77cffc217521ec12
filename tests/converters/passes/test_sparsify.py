"""Graphs in forms that need care: each is made sparse right, or left alone."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers

from tests.zoo import sparse_nets
from tests.zoo.random_graphs import Net
from tfcompress import converters
from tfcompress.converters import Sparse, sparsify
from tfcompress.converters.passes.equality import difference
from tfcompress.converters.passes.flatbuffer import pack, unpack
from tfcompress.edge import Runner

SINGLE = (0.9, 0, 1)
"""90% zeros, no blocks."""


def written(net, path):
    path.write_bytes(net.content())
    return path


def test_wide_int8_fully_connected_has_one_byte_an_index(tmp_path):
    net = Net("int8", 0, [1, 784])
    net.fully_connected(300, 1, True, SINGLE)
    small = sparsify(written(net, tmp_path / "a.tflite"), tmp_path / "b.tflite")
    [weight] = small.weights
    assert "uint8 indices" in weight.encoding
    found = converters.inspect(small)
    assert found.ops == {"RESHAPE": 2, "DENSIFY": 1, "CONV_2D": 1}
    assert (300, 1, 4, 196) in [t.shape for t in found.constants]
    # A value and an index for each of 10%, a segment for each of 4 pixels of 300 units.
    assert small.bytes < 784 * 300 * 0.11 * 2 + 4 * 300 * 2 + 300 * 12 + 3000


@pytest.mark.parametrize("free", [False, True])
def test_int8_fully_connected_ops_that_share_weights(tmp_path, free):
    net = Net("int8", 0, [1, 5, 64], free_batch=free)
    net.fully_connected(64, 0, False, SINGLE)
    first = net.graph.tables.operators[-1]
    target = net.activation([1, 5, 64])
    options = schema.FullyConnectedOptionsT(keepNumDims=True)
    net.op("FULLY_CONNECTED", [net.last, int(first.inputs[1]), -1], target, options, 4)
    net.last = target
    small = sparsify(written(net, tmp_path / "a.tflite"), tmp_path / "b.tflite")
    assert converters.inspect(small).ops == {"RESHAPE": 4, "CONV_2D": 2, "DENSIFY": 1}


def test_int4_weights_are_left_alone(tmp_path):
    net = Net("int8", 0, [1, 8, 8, 64])
    weights, _ = net.convolution(64, 1, 1, True, 0, SINGLE)
    tensor = net.graph[weights]
    rows = net.graph.array(weights).reshape(-1, 2) % 16
    net.model.buffers[tensor.buffer].data = (rows[:, 0] | rows[:, 1] << 4).astype(np.uint8)
    tensor.type = schema.TensorType.INT4
    small = sparsify(written(net, tmp_path / "a.tflite"), tmp_path / "b.tflite")
    assert [w.reason for w in small.weights] == ["the runtime unpacks no sparse int4"]


def test_constants_that_are_outputs_or_empty_are_left_alone(tmp_path):
    net = Net("float32", 0, [1, 8, 8, 64])
    weights, _ = net.convolution(64, 1, 1, True, 0, SINGLE)
    empty = net.tensor("empty", np.zeros((0, 3), np.float32))
    net.graph.tables.outputs = np.array([weights, net.last], np.int32)
    content = pack(net.model)
    (tmp_path / "a.tflite").write_bytes(content)
    small = sparsify(tmp_path / "a.tflite", tmp_path / "b.tflite")
    assert [w.reason for w in small.weights] == ["it is an input or an output of its graph"]
    kept = unpack(small.path.read_bytes())
    assert kept.buffers[kept.subgraphs[0].tensors[empty].buffer].data is not None


def test_weights_of_zeros_alone(tmp_path):
    net = Net("float32", 0, [1, 8, 8, 64])
    net.convolution(64, 3, 1, True, 0, (1.0, 0, 1))
    small = sparsify(written(net, tmp_path / "a.tflite"), tmp_path / "b.tflite")
    assert small.weights[0].zeros == 1.0
    assert small.bytes < 3000


def blocks_of_zeros(share, tmp_path):
    net = Net("float32", 0, [1, 256])
    net.fully_connected(256, 1, True, (share, 1, 4))
    net.fully_connected(256, 0, True, (0.5, 1, 1))
    return written(net, tmp_path / "a.tflite")


def test_zeros_are_skipped_where_that_is_faster(tmp_path):
    file = blocks_of_zeros(0.95, tmp_path)
    small = sparsify(file, tmp_path / "b.tflite", Sparse(skip_zeros=True))
    ends = [w.encoding.endswith("zeros skipped") for w in small.weights]
    assert ends == [True, False]
    found = converters.inspect(small)
    assert found.ops == {"FULLY_CONNECTED": 2, "DENSIFY": 1}
    samples = np.random.default_rng(0).normal(size=(1, 256)).astype("float32")
    expected = Runner(file)(samples)
    # Float sums of 256 products in another order, twice.
    np.testing.assert_allclose(Runner(small)(samples), expected, atol=1e-5 * np.abs(expected).max())


def test_zeros_are_not_skipped_below_85_percent(tmp_path):
    file = blocks_of_zeros(0.8, tmp_path)
    skipping = sparsify(file, tmp_path / "b.tflite", Sparse(skip_zeros=True))
    assert skipping.path.read_bytes() == sparsify(file, tmp_path / "c.tflite").path.read_bytes()


def test_a_difference_is_found_on_the_path_that_has_it(tmp_path):
    net = Net("float32", 0, [1, 8, 8, 3])
    _, bias = net.convolution(8, 3, 1, True, 0, SINGLE)
    before = written(net, tmp_path / "a.tflite")
    assert difference(before, before) == ""
    model = unpack(before.read_bytes())
    data = model.buffers[model.subgraphs[0].tensors[bias].buffer].data.copy()
    values = data.view(np.float32)
    values[3] = np.nextafter(values[3], np.float32(np.inf))
    model.buffers[model.subgraphs[0].tensors[bias].buffer].data = data
    after = tmp_path / "b.tflite"
    after.write_bytes(pack(model))
    assert "the Interpreter with XNNPACK, output" in difference(before, after)
    assert difference(before, after, tolerance=1e-4) == ""


def test_zeros_that_rounding_makes_count_for_the_sparse_check(tmp_path):
    model = sparse_nets.net("max pooling", zeros=0.6)
    for layer in model.layers:
        if layer.name in ("first", "second"):
            kernel = layer.kernel.numpy()
            kernel[:, :, 0] *= 200  # next to which many others round to zero
            layer.kernel.assign(kernel)
    file = converters.convert(model, tmp_path / "a.tflite", batch_size=1)
    assert converters.check_sparse_kernels(file).kind == "safe"
    assert any(w.encoding for w in sparsify(file, tmp_path / "b.tflite").weights)
    rounded = sparsify(file, tmp_path / "b.tflite", Sparse(int8_weights=True))
    assert converters.check_sparse_kernels(rounded).kind == "unsafe"
    assert [w.encoding for w in rounded.weights] == [""] * 4
    assert all("XNNPACK on Arm" in w.reason for w in rounded.weights)


@pytest.mark.slow("converts loops in every precision")
@pytest.mark.parametrize("precision", [converters.Float32(), converters.Float16()])
def test_weights_in_the_bodies_of_loops(tmp_path, precision):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6, 40)), layers.LSTM(48, return_sequences=True), layers.GRU(40)]
    )
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(variable * (rng.random(variable.shape) > 0.9))
    file = converters.convert(
        model, tmp_path / "a.tflite", precision, batch_size=1, sparse=Sparse(names=False)
    )
    assert sum(bool(w.encoding) for w in file.sparse.weights) == 4
    assert file.bytes < file.sparse.bytes_before / 2
