import json

import numpy as np
import pytest
import tensorflow as tf

from tests.support.float_files import float_file, main_graph, ops_of, run_file
from tfcompress.converters.jobs.histogram import Histogram, NotFinite
from tfcompress.converters.jobs.post_training import WIDE, post_training
from tfcompress.converters.jobs.range_choices import CHOICES
from tfcompress.converters.jobs.tensor_values import Samples, load
from tfcompress.converters.passes.graph import DTYPES
from tfcompress.converters.precisions.base import ConverterOptions

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 12, 12, 3)).astype("float32")
CONV = RNG.normal(size=(3, 3, 3, 8)).astype("float32")
DENSE = RNG.normal(size=(8, 5)).astype("float32")
GIVEN = Samples({"x": X})


def net(x):
    y = tf.nn.relu(tf.nn.conv2d(x, CONV, 1, "SAME") + 0.5)
    return -tf.matmul(tf.reduce_mean(y, (1, 2)), DENSE)


@pytest.fixture(scope="module")
def content():
    return float_file(net, x=(None, 12, 12, 3))


def options(**changes):
    """Return options as the child process gets them."""
    chosen = ConverterOptions(optimizations=("DEFAULT",), **changes)
    return json.loads(json.dumps(chosen.to_dict()))


def snr_db(content, made, xnnpack=True):
    [wanted], [found] = (run_file(file, GIVEN, xnnpack=xnnpack) for file in (content, made))
    wide = wanted.astype(np.float64)
    return 10 * np.log10((wide**2).sum() / ((found - wide) ** 2).sum())


def seen_of(node_op, graph):
    """Return the scale of what an op computes."""
    [node] = [node for node in graph.tables.operators if graph.op(node) == node_op]
    return float(graph[int(node.outputs[0])].quantization.scale[0])


@pytest.mark.parametrize("name", CHOICES)
def test_ranges_are_chosen_as_asked_and_inputs_keep_theirs(name, content):
    made = post_training(content, options(ranges=name), GIVEN, None)
    graph = main_graph(made.content)
    assert "NEG" not in ops_of(graph)
    y = tf.nn.relu(tf.nn.conv2d(X, CONV, 1, "SAME") + 0.5).numpy()
    low, high = CHOICES[name](Histogram().add(y))
    assert (high == y.max()) == (name == "minmax")
    # float32 sums of 27 products, counted in bins of a sixteenth of a step.
    assert seen_of("CONV_2D", graph) == pytest.approx((high - min(low, 0)) / 255, rel=1e-3)
    assert seen_of("QUANTIZE", graph) == pytest.approx((X.max() - X.min()) / 255, rel=1e-5)
    for xnnpack in (True, False):
        # Eight bits and four roundings.
        assert snr_db(content, made.content, xnnpack) > 30


def test_16_bits_are_symmetric_and_clip_nothing(content):
    made = post_training(content, options(supported_ops=(WIDE,)), GIVEN, None).content
    y = tf.nn.relu(tf.nn.conv2d(X, CONV, 1, "SAME") + 0.5).numpy()
    assert seen_of("CONV_2D", main_graph(made)) == pytest.approx(y.max() / 32767, rel=1e-4)
    eight = post_training(content, options(), GIVEN, None).content
    # The weights have 8 bits in both.
    assert snr_db(content, made, xnnpack=False) > snr_db(content, eight) > 30


def request(**changes):
    chosen = {"tree": {}, "keep": [], "only": None, "ends": False, "budget": None}
    return {**chosen, "rounding": "nearest", **changes}


@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_bias_correction_makes_up_for_kernels_of_4_bits(content, rounding):
    errors, sizes = [], []
    [wanted] = run_file(content, GIVEN)
    for correct in (False, True):
        made = post_training(
            content, options(bias_correction=correct), GIVEN, request(rounding=rounding)
        )
        assert not made.kept_weights
        [found] = run_file(made.content, GIVEN)
        errors.append(np.abs((found - wanted).mean(0)).mean())
        sizes.append(len(made.content))
    # The edges of images and what later roundings add stay.
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize("correct", [False, True])
def test_kernels_of_8_bits_are_the_rounded_ones_with_and_without_corrected_biases(content, correct):
    made = post_training(content, options(bias_correction=correct), GIVEN, None)
    graph = main_graph(made.content)
    [conv] = [node for node in graph.tables.operators if graph.op(node) == "CONV_2D"]
    data, kernel, bias = map(int, conv.inputs)
    wide = CONV.transpose(3, 0, 1, 2).astype(np.float64)
    scale = np.abs(wide).max((1, 2, 3), keepdims=True) / 127
    steps = np.rint(wide / scale)
    np.testing.assert_allclose(graph.array(kernel), steps, atol=1, rtol=0)
    wanted = np.full(8, 0.5)
    if correct:
        wanted -= np.einsum("ohwc,c->o", steps * scale - wide, X.mean((0, 1, 2), np.float64))
    unit = graph[data].quantization.scale[0] * scale.reshape(-1)
    # Half a step of the bias, and a weight that falls half way between two steps.
    np.testing.assert_allclose(graph.array(bias) * unit, wanted, atol=2e-3)


def test_loops_are_left_to_the_converter():
    loop = float_file(
        lambda x: tf.while_loop(lambda y: tf.reduce_sum(y) < 9.0, lambda y: [y + 1.0], [x]),
        x=(1, 3),
    )
    assert post_training(loop, options(), Samples({"x": X[:4, 0, 0]}), None) is None


def test_nan_is_refused():
    content = float_file(lambda x: tf.sqrt(x) * 2.0, x=(None, 3))
    with pytest.raises(NotFinite, match="computes NaN on these samples"):
        post_training(content, options(), Samples({"x": X[:, 0, 0]}), None)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_inputs_and_outputs_are_integers_if_asked(content, dtype):
    made = post_training(content, options(input_type=dtype, output_type=dtype), GIVEN, None)
    graph = main_graph(made.content)
    border = int(graph.tables.inputs[0]), int(graph.tables.outputs[0])
    if dtype == "int8":
        assert [DTYPES[graph[index].type].name for index in border] == [dtype] * 2
    assert ("QUANTIZE" in ops_of(graph)) == (dtype == "uint8")


def test_samples_are_read_from_a_file(tmp_path):
    path = tmp_path / "s.npz"
    np.savez(path, X, X[:, 0])
    found = load({"path": str(path), "names": ["b", "a"], "batch_size": 4})
    assert list(found.arrays) == ["b", "a"] and found.batch_size == 4
    np.testing.assert_array_equal(found.arrays["b"], X)
