import numpy as np
import pytest
import tensorflow as tf

from tests.support.float_files import float_file, main_graph, run_file
from tfcompress.converters.jobs.bias_correction import corrected, readers_of_kernels, uncorrected
from tfcompress.converters.jobs.observed import observe
from tfcompress.converters.jobs.tensor_values import Samples
from tfcompress.converters.passes.flatbuffer import pack

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(1.0, 1.0, (50, 6, 6, 3)).astype("float32")
FLAT = np.broadcast_to(RNG.normal(1.0, 1.0, (50, 1, 1, 3)), (50, 6, 6, 3)).astype("float32")
ROWS = RNG.normal(1.0, 1.0, (50, 4, 6)).astype("float32")


def kernel(*shape):
    return RNG.normal(size=shape).astype("float32")


NETS = {
    "dense": (lambda x: tf.matmul(x, kernel(6, 5)) + kernel(5), ROWS),
    "no_bias": (lambda x: tf.matmul(x, kernel(6, 5)), ROWS),
    "pointwise": (lambda x: tf.nn.conv2d(x, kernel(1, 1, 3, 5), 1, "SAME") + kernel(5), IMAGES),
    "no_bias_conv": (lambda x: tf.nn.conv2d(x, kernel(1, 1, 3, 5), 1, "SAME"), IMAGES),
    "depthwise": (
        lambda x: tf.nn.depthwise_conv2d(x, kernel(3, 3, 3, 2), (1,) * 4, "VALID") + kernel(6),
        FLAT,
    ),
    "windows": (lambda x: tf.nn.conv2d(x, kernel(3, 3, 3, 5), 2, "VALID") + kernel(5), FLAT),
}


def rounded(graph, steps):
    """Round the kernel of the one op as int8 will hold it, or in fewer steps; return the op."""
    [node] = readers_of_kernels(graph)
    values = graph.array(int(node.inputs[1])).astype(np.float64)
    axis = 3 if graph.op(node) == "DEPTHWISE_CONV_2D" else 0
    others = tuple(a for a in range(values.ndim) if a != axis)
    scale = np.abs(values).max(others, keepdims=True) / steps
    graph.set_array(int(node.inputs[1]), (np.rint(values / scale) * scale).astype(np.float32))
    return node


def means(content, samples):
    [out] = run_file(content, samples)
    return out.astype(np.float64).mean(tuple(range(out.ndim - 1)))


@pytest.mark.parametrize("steps", [127, 7], ids=["int8", "int4"])
@pytest.mark.parametrize("name", NETS)
def test_the_mean_of_each_output_is_as_before_rounding(name, steps):
    function, data = NETS[name]
    samples = Samples({"x": data})
    before = float_file(function, x=(None, *data.shape[1:]))
    graph = main_graph(before)
    [node] = readers_of_kernels(graph)
    ops = uncorrected(graph, observe(graph, samples, [int(node.inputs[0])]).means)
    assert set(ops) == {int(node.outputs[0])}
    rounded(graph, steps)
    coarse = pack(graph.model)
    # int8 is rounded by the quantizer, which comes later; 4 bits are given as they are stored.
    mended = main_graph(corrected(before if steps == 127 else coarse, ops))
    if steps == 127:
        rounded(mended, steps)
    wanted = means(before, samples)
    assert np.abs(means(coarse, samples) - wanted).max() > 1e-3
    # Sums in float32.
    np.testing.assert_allclose(means(pack(mended.model), samples), wanted, atol=2e-5, rtol=0)


def test_inside_an_image_a_window_adds_what_its_channels_add_on_average():
    samples = Samples({"x": IMAGES})
    before = float_file(
        lambda x: tf.nn.conv2d(x, kernel(3, 3, 3, 8), 1, "VALID"), x=(None, 6, 6, 3)
    )
    graph = main_graph(before)
    [node] = readers_of_kernels(graph)
    mean = IMAGES.astype(np.float64).mean((0, 1, 2))
    ops = uncorrected(graph, {int(node.inputs[0]): mean})
    old = graph.array(int(node.inputs[1])).astype(np.float64)
    rounded(graph, 7)
    new = graph.array(int(node.inputs[1])).astype(np.float64)
    coarse = pack(graph.model)
    mended = main_graph(corrected(coarse, ops))
    [node] = readers_of_kernels(mended)
    bias = mended.array(int(node.inputs[2]))
    # float32 biases; by hand: the errors of all nine places, times the mean of their channel.
    np.testing.assert_allclose(bias, -np.einsum("ohwc,c->o", new - old, mean), atol=1e-5)
    shift = np.abs(means(coarse, samples) - means(before, samples)).max()
    assert np.abs(means(pack(mended.model), samples) - means(before, samples)).max() < shift / 4


def test_a_bias_that_two_ops_share_is_not_changed_for_both():
    shared, one, other = kernel(5), kernel(6, 5), kernel(6, 5)
    content = float_file(
        lambda x: [tf.matmul(x, one) + shared, tf.matmul(x, other) + shared], x=(None, 6)
    )
    graph = main_graph(content)
    mean = np.arange(6.0)
    first, second = readers_of_kernels(graph)
    kernels = [graph.array(int(node.inputs[1])).copy() for node in (first, second)]
    second.inputs = np.array([*second.inputs[:2], first.inputs[2]], np.int32)
    for node in (first, second):
        graph.set_array(int(node.inputs[1]), np.round(graph.array(int(node.inputs[1]))))
    given = {int(node.inputs[0]): mean for node in (first, second)}
    ops = uncorrected(graph, given)
    ops = {
        index: op._replace(kernel=old.astype(np.float64))
        for (index, op), old in zip(ops.items(), kernels, strict=True)
    }
    made = main_graph(corrected(pack(graph.model), ops))
    nodes = readers_of_kernels(made)
    for node, old in zip(nodes, kernels, strict=True):
        wanted = shared - (made.array(int(node.inputs[1])) - old) @ mean
        np.testing.assert_allclose(made.array(int(node.inputs[2])), wanted, atol=1e-4)


def test_nothing_to_correct_leaves_the_file():
    content = float_file(lambda x: tf.nn.relu(x), x=(None, 6))
    assert corrected(content, {}) is content
    assert uncorrected(main_graph(content), {}) == {}
