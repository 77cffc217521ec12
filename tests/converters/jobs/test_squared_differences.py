import json

import numpy as np
import tensorflow as tf

from tests.support.float_files import float_file, main_graph, ops_of, run_file
from tfcompress.converters.jobs.post_training import WIDE, post_training
from tfcompress.converters.jobs.squared_differences import multiply_differences
from tfcompress.converters.jobs.tensor_values import Samples
from tfcompress.converters.passes.flatbuffer import pack
from tfcompress.converters.precisions.base import ConverterOptions

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6, 8)).astype("float32") * RNG.uniform(1, 3, (32, 1, 1)).astype("float32")
GIVEN = Samples({"x": X})


def normalized(x):
    """Keras' LayerNormalization, with its broadcast mean."""
    mean = tf.reduce_mean(x, -1, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(x, mean), -1, keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + 1e-3)


def test_differences_are_multiplied_with_the_same_results():
    content = float_file(normalized, x=(None, 6, 8))
    graph = main_graph(content)
    assert "SQUARED_DIFFERENCE" in ops_of(graph)
    multiply_differences(graph)
    assert "SQUARED_DIFFERENCE" not in ops_of(graph)
    wanted, found = run_file(content, GIVEN), run_file(pack(graph.model), GIVEN)
    np.testing.assert_array_equal(found, wanted)


def test_a_normalization_runs_in_16_bits():
    content = float_file(normalized, x=(None, 6, 8))
    options = ConverterOptions(optimizations=("DEFAULT",), supported_ops=(WIDE,)).to_dict()
    made = post_training(content, json.loads(json.dumps(options)), GIVEN, None)
    [found] = run_file(made.content, GIVEN, xnnpack=False)
    mean = X.mean(-1, keepdims=True, dtype=np.float64)
    variance = ((X - mean) ** 2).mean(-1, keepdims=True)
    wanted = (X - mean) / np.sqrt(variance + 1e-3)
    # 16 bits hold 90 dB; the table of RSQRT has 512 entries over its range.
    assert 10 * np.log10((wanted**2).sum() / ((found - wanted) ** 2).sum()) > 35
