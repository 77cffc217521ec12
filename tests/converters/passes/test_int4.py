import numpy as np
import pytest

from tfcompress import converters, edge
from tfcompress.converters.passes.flatbuffer import pack, unpack
from tfcompress.converters.passes.graph import graphs
from tfcompress.converters.passes.int4 import (
    Integers,
    is_same,
    packed,
    quantization,
    unpacked,
    use,
)
from tfcompress.converters.passes.kernels import find_kernels

BIAS = np.random.default_rng(0).normal(size=64)


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_unpacked_gives_back_what_was_packed(size):
    values = np.random.default_rng(size).integers(-8, 8, size).astype(np.int8)
    assert np.array_equal(unpacked(packed(values), size), values)
    assert packed(values).nbytes == -(-size // 2)


def in_4_bits(graph, index):
    """The nearest integers of 4 bits to an int8 kernel, with a step that a row does not fill."""
    array = graph.array(index)
    rows = array.reshape(len(array), -1) * np.asarray(graph[index].quantization.scale)[:, None]
    scales = (np.abs(rows).max(axis=1) / np.linspace(5, 7, len(rows))).astype(np.float32)
    values = np.clip(np.rint(rows / scales[:, None]), -7, 7).astype(np.int8)
    return Integers(values.reshape(array.shape), scales)


def quantized(graph, index, found):
    """Store what the quantizer makes of the numbers: the largest of each row becomes 127."""
    rows = found.values.reshape(len(found.values), -1).astype(float)
    largest = np.abs(rows).max(axis=1)
    values = np.rint(rows * 127 / largest[:, None]).astype(np.int8)
    graph.set_array(index, values.reshape(found.values.shape))
    graph[index].quantization = quantization(largest * found.scales / 127)


@pytest.fixture(scope="module")
def two_files(files, tmp_path_factory):
    """A file in 4 bits, and one with the same integers in 8: NumPy's own arithmetic for biases."""
    folder = tmp_path_factory.mktemp("int4")
    paths = {}
    for kind in ("int8", "int4"):
        model = unpack(files["int8"].path.read_bytes())
        graph = graphs(model)[0]
        for kernel in find_kernels(graph, {}, "INT8"):
            found = in_4_bits(graph, kernel.index)
            (node,) = kernel.nodes
            step = float(graph[int(node.inputs[0])].quantization.scale[0])
            real = np.rint(BIAS * 1000)[: len(found.scales)] * step * found.scales
            if kind == "int4":
                quantized(graph, kernel.index, found)
                assert is_same(graph, kernel.index, found)
                give_bias(graph, node, real, step * np.array(scales_of(graph, kernel.index)))
                use(graph, kernel.index, found)
            else:
                give_bias(graph, node, real, step * found.scales.astype(float))
                graph.set_array(kernel.index, found.values)
                graph[kernel.index].quantization = quantization(found.scales)
        paths[kind] = folder / f"{kind}.tflite"
        paths[kind].write_bytes(pack(model))
    return paths


def scales_of(graph, index):
    return graph[index].quantization.scale


def give_bias(graph, node, real, steps):
    bias = graph.add(None, np.rint(real / steps).astype(np.int32))
    graph[bias].name = b"bias"
    graph[bias].quantization = quantization(steps)
    node.inputs = np.array([*node.inputs[:2], bias], np.int32)


@pytest.mark.parametrize("delegate", ["xnnpack", "reference"])
def test_a_file_of_4_bits_computes_as_the_same_integers_in_8(two_files, images, delegate):
    four, eight = (edge.Runner(two_files[k], delegate=delegate) for k in ("int4", "int8"))
    # XNNPACK runs the convolution of 8 bits, and TFLite's own kernel that of 4: they may round the
    # halves in other directions, which is a step of an inner tensor.
    step = 0 if delegate == "reference" else 0.02
    wanted = eight(images)
    assert np.abs(four(images) - wanted).max() <= step * np.abs(wanted).max()


def test_a_file_of_4_bits_is_described_as_such(two_files, files):
    found = converters.inspect(two_files["int4"])
    kernels = [tensor for tensor in found.constants if len(tensor.shape) > 1]
    assert {tensor.dtype for tensor in kernels} == {"int4"}
    assert [tensor.bytes for tensor in kernels] == [600, 540]
    # 1,200 + 1,080 weights take half a byte less each; `two_files` adds biases of 70 x 4 bytes.
    saved = converters.inspect(files["int8"]).constant_bytes - found.constant_bytes
    assert saved == 1140 - 280
    model = unpack(two_files["int4"].read_bytes())
    zeros = [np.mean(in_file(graphs(model)[0], kernel) == 0) for kernel in kernels]
    assert [tensor.sparsity for tensor in kernels] == pytest.approx(zeros)
    # Nothing lies outside the tables, where TensorFlow Lite Micro would read zeros.
    assert all(buffer.offset <= 1 for buffer in model.buffers)
    assert "int4" in str(found)


def in_file(graph, kernel):
    index = next(i for i, t in enumerate(graph.tables.tensors) if t.name.decode() == kernel.name)
    data = np.asarray(graph.model.buffers[graph[index].buffer].data, np.uint8)
    return unpacked(data, int(np.prod(kernel.shape)))


def test_is_same_tells_other_kernels_apart(files):
    graph = graphs(unpack(files["int8"].path.read_bytes()))[0]
    for kernel in find_kernels(graph, {}, "INT8"):
        found = in_4_bits(graph, kernel.index)
        assert not is_same(graph, kernel.index, found)  # it holds all 255 integers
        quantized(graph, kernel.index, found)
        assert is_same(graph, kernel.index, found)
        assert not is_same(graph, kernel.index, Integers(found.values, found.scales * 1.01))
        changed = found.values.copy()
        changed.flat[0] += 1 if changed.flat[0] < 0 else -1
        assert not is_same(graph, kernel.index, Integers(changed, found.scales))
