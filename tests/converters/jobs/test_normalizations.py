import json

import numpy as np
import pytest
import tensorflow as tf

from tests.support.float_files import float_file, main_graph, ops_of, run_file
from tfcompress.converters.jobs.normalizations import even_out, normalizations
from tfcompress.converters.jobs.post_training import post_training
from tfcompress.converters.jobs.tensor_values import Samples
from tfcompress.converters.passes.flatbuffer import pack
from tfcompress.converters.precisions.base import ConverterOptions

RNG = np.random.default_rng(0)
WIDTH = 16
X = RNG.normal(size=(64, WIDTH)).astype("float32")
FIRST, SECOND, THIRD = ((RNG.normal(size=(WIDTH, WIDTH)) / 4).astype("float32") for _ in range(3))
GIVEN = Samples({"x": X})
LARGE = np.where(np.arange(WIDTH) == 3, 300, 1).astype("float32")
OPTIONS = json.loads(json.dumps(ConverterOptions(optimizations=("DEFAULT",)).to_dict()))


def layer_norm(x):
    mean = tf.reduce_mean(x, -1, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(x, mean), -1, keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + 1e-6) * (1 + X[0] / 9) + X[1] / 9


def rms_norm(x):
    return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + 1e-6) * (1 + X[0])


def divided_norm(x):
    """As Gemma's; in int8, a divisor that is rounded to zero ends the run."""
    return x / tf.sqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + 1e-6) * (1 + X[0])


def net(norm, large):
    """A dense layer, a residual sum, a normalization, and two dense layers that read it."""

    def call(x):
        y = norm(tf.matmul(x, FIRST) + x + (large - 1))
        # The small channels are those that count.
        small = tf.matmul(y, SECOND * (large.max() / large)[:, None])
        return tf.nn.relu(small) + y @ THIRD

    return float_file(call, x=(None, WIDTH))


@pytest.mark.parametrize("norm", [layer_norm, rms_norm, divided_norm])
def test_normalizations_that_int8_would_ruin_stay_in_float(norm, monkeypatch):
    content = net(norm, LARGE)
    graph = main_graph(content)
    found = normalizations(graph)
    others = [n for n in graph.tables.operators if int(n.outputs[0]) not in found]
    # All but the dense layers and what comes after the normalization.
    assert sorted(map(graph.op, others)) == ["ADD", *["FULLY_CONNECTED"] * 3]

    even = even_out(graph, found, GIVEN)
    assert len(even) == 1  # one product for both readers
    [wanted], [actual] = (run_file(file, GIVEN) for file in (content, pack(graph.model)))
    np.testing.assert_allclose(actual, wanted, atol=1e-5 * np.abs(wanted).max())

    made = post_training(content, OPTIONS, GIVEN, None)
    assert len(made.kept_float) == len(found) + 1
    monkeypatch.setattr("tfcompress.converters.jobs.post_training._ENOUGH", -np.inf)
    narrow = post_training(content, OPTIONS, GIVEN, None)
    assert not narrow.kept_float

    def lost(content):
        [rounded] = run_file(content, GIVEN)
        return np.square(rounded - wanted).sum() / np.square(wanted - wanted.mean(0)).sum()

    # In int8 the small channels are less than a step of the large one.
    assert lost(made.content) < 0.1 < lost(narrow.content)


def test_even_normalizations_are_int8():
    made = post_training(net(layer_norm, np.ones_like(LARGE)), OPTIONS, GIVEN, None)
    assert not made.kept_float
    assert "DEQUANTIZE" in ops_of(main_graph(made.content))  # of the output alone


def test_a_root_of_something_else_is_no_normalization():
    content = float_file(lambda x: x * tf.math.rsqrt(tf.abs(x) + 1.0), x=(None, WIDTH))
    assert not normalizations(main_graph(content))
    content = float_file(lambda x: tf.math.l2_normalize(x @ FIRST, -1), x=(None, WIDTH))
    assert not normalizations(main_graph(content))


def test_a_divisor_that_int8_rounds_to_zero_stays_in_float():
    """Of samples where one is 3,000 times as large as the others: int8 loses these, and runs."""

    def call(x):
        return divided_norm(tf.matmul(x, FIRST)) @ SECOND

    sizes = np.where(np.arange(len(X)) == 5, 3000, 1)[:, None].astype("float32")
    content, given = float_file(call, x=(None, WIDTH)), Samples({"x": X * sizes})
    made = post_training(content, OPTIONS, given, None)
    assert made.kept_float
    [actual] = run_file(made.content, given)
    assert np.isfinite(actual).all()
