import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcompress.converters.jobs import layer_inputs
from tfcompress.converters.jobs.layer_inputs import hessian, patches
from tfcompress.converters.jobs.tensor_values import Samples
from tfcompress.converters.passes.flatbuffer import unpack
from tfcompress.converters.passes.graph import graphs
from tfcompress.converters.passes.kernels import find_kernels

CASES = [*itertools.product([1, 2, 3], [1], ["SAME", "VALID"]), (1, 2, "SAME"), (1, 2, "VALID")]


@pytest.mark.parametrize(("stride", "dilation", "padding"), CASES)
def test_patches_times_the_kernel_are_the_convolution(stride, dilation, padding):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 9, 7, 3)).astype(np.float32)
    kernel = rng.normal(size=(3, 2, 3, 4)).astype(np.float32)
    wanted = tf.nn.conv2d(images, kernel, stride, padding, dilations=dilation).numpy()
    views = patches(images, (3, 2), (stride,) * 2, (dilation,) * 2, padding == "SAME")
    found = np.tensordot(views, kernel, 3)
    # Sums of 18 products in another order.
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.fixture
def graph(files):
    return graphs(unpack(files["float32"].path.read_bytes()))[0]


def given(images):
    return Samples({"image": images})


def test_hessian_is_that_of_all_inputs_of_a_layer(graph, model, images, monkeypatch):
    monkeypatch.setattr(layer_inputs, "_TIMES", 10**9)  # every row
    conv, dense = find_kernels(graph, {})
    rows = patches(images, (3, 3), (2, 2), (1, 1), False).reshape(-1, 27).astype(np.float64)
    np.testing.assert_allclose(hessian(graph, conv.nodes, given(images)), rows.T @ rows, 1e-4)
    inputs = keras.Model(model.input, model.get_layer("pool").output)(images).numpy()
    wide = inputs.astype(np.float64)
    found = hessian(graph, dense.nodes, given(images))
    # Means of float32 sums in another order.
    np.testing.assert_allclose(found, wide.T @ wide, rtol=1e-3)


def test_hessian_of_some_rows_is_about_that_of_all(graph, images, monkeypatch):
    conv, _ = find_kernels(graph, {})
    few = hessian(graph, conv.nodes, given(images))  # 64 x 27 of 40 x 36 rows: all
    monkeypatch.setattr(layer_inputs, "_TIMES", 20)
    some = hessian(graph, conv.nodes, given(images))
    share = np.trace(some) / np.trace(few)
    # 40 samples x 14 of their 25 positions; random normal pixels.
    assert 0.45 < share < 0.67


def test_hessian_sees_the_kernels_that_are_in_the_file_now(graph, images):
    conv, dense = find_kernels(graph, {})
    graph.set_array(conv.index, np.zeros_like(graph.array(conv.index)))
    bias = graph.array(int(conv.nodes[0].inputs[2]))
    inputs = np.maximum(bias, 0).astype(np.float64)
    found = hessian(graph, dense.nodes, given(images))
    np.testing.assert_allclose(found, len(images) * np.outer(inputs, inputs), rtol=1e-4)
