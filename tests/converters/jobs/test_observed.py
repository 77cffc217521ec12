import numpy as np
import pytest
import tensorflow as tf

from tests.support.float_files import float_file, made_by, main_graph
from tfcompress.converters.jobs.histogram import NotFinite
from tfcompress.converters.jobs.observed import observe, why_unobservable
from tfcompress.converters.jobs.tensor_values import Samples, inputs_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 6, 5, 3)).astype("float32")  # two runs of up to 64 samples
KERNEL = RNG.normal(size=(1, 1, 3, 4)).astype("float32")


def net(x):
    return tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(x, KERNEL, 1, "SAME")), (1, 2))


@pytest.fixture(scope="module")
def graph():
    return main_graph(float_file(net, x=(None, 6, 5, 3)))


def test_bounds_zeros_and_means_are_those_of_numpy(graph):
    [given], [conv] = inputs_of(graph.model).values(), made_by(graph, "CONV_2D")
    [mean] = made_by(graph, "MEAN")
    seen = observe(graph, Samples({"x": X}), averaged=[given, conv])
    y = np.maximum(X @ KERNEL[0, 0], 0)  # ReLU is part of the convolution
    assert set(seen.values) == {given, conv, mean}
    for index, values in ((given, X), (conv, y), (mean, y.mean((1, 2)))):
        found = seen.values[index]
        # Sums of three products, or of thirty values, in float32.
        np.testing.assert_allclose([found.low, found.high], [values.min(), values.max()], 1e-5)
        assert found.counts.sum() + found.zeros == values.size
    assert seen.values[conv].zeros == np.sum(y == 0)
    assert set(seen.means) == {given, conv}
    np.testing.assert_allclose(seen.means[given], X.mean((0, 1, 2)), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(seen.means[conv], y.mean((0, 1, 2)), rtol=1e-4)


def test_a_tensor_that_becomes_nan_is_named():
    graph = main_graph(float_file(lambda x: tf.sqrt(x) * 2.0, x=(None, 2)))
    [root] = made_by(graph, "SQRT")
    with pytest.raises(NotFinite, match=f"NaN on these samples, .* '{graph.name(root)}'"):
        observe(graph, Samples({"x": np.float32([[1, 4], [9, -1]])}))


def test_loops_and_variables_are_out_of_reach(graph):
    assert why_unobservable(graph.model) == ""
    loop = float_file(
        lambda x: tf.while_loop(lambda y: tf.reduce_sum(y) < 100.0, lambda y: [y * 2.0 + 1.0], [x]),
        x=(1, 3),
    )
    from tfcompress.converters.passes.flatbuffer import unpack

    assert "WHILE" in why_unobservable(unpack(loop))
