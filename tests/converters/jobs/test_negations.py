import numpy as np
import pytest
import tensorflow as tf

from tests.support.float_files import float_file, main_graph, ops_of, run_file
from tfcompress.converters.jobs.negations import multiply_negations
from tfcompress.converters.jobs.tensor_values import Samples
from tfcompress.converters.passes.flatbuffer import pack

X = Samples({"x": np.random.default_rng(0).normal(size=(5, 4)).astype("float32")})


@pytest.mark.parametrize("xnnpack", [True, False], ids=["xnnpack", "reference"])
def test_products_equal_the_negated_values(xnnpack):
    X.arrays["x"][0] = [0.0, -0.0, 3e38, 1e-30]
    before = float_file(lambda x: [-tf.nn.relu(x), tf.exp(-x) + 1.0], x=(None, 4))
    graph = main_graph(before)
    assert ops_of(graph).count("NEG") == 2
    multiply_negations(graph)
    assert "NEG" not in ops_of(graph) and ops_of(graph).count("MUL") == 2
    found, wanted = (run_file(file, X, xnnpack=xnnpack) for file in (pack(graph.model), before))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_negated_integers_stay_as_they_are():
    graph = main_graph(float_file(lambda x: -tf.cast(x, tf.int32), x=(None, 4)))
    multiply_negations(graph)
    assert ops_of(graph) == ["CAST", "NEG"]
