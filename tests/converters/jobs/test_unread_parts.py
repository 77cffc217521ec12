import numpy as np
import pytest
import tensorflow as tf

from tests.support.float_files import float_file, main_graph, ops_of, run_file
from tfcompress.converters.jobs.tensor_values import Samples
from tfcompress.converters.jobs.unread_parts import drop_unread_parts
from tfcompress.converters.passes.flatbuffer import pack

X = Samples({"x": np.random.default_rng(0).normal(size=(6, 4, 8)).astype("float32")})


def parts(x, axis, read):
    split = tf.split(tf.nn.relu(x), 4, axis)
    return [split[place] * 2.0 if place % 2 else split[place] for place in read]


@pytest.mark.parametrize("xnnpack", [True, False], ids=["xnnpack", "reference"])
@pytest.mark.parametrize(("axis", "read"), [(-1, [0, 3]), (1, [2]), (2, [1, 2, 3])])
def test_the_parts_that_are_read_keep_their_values(axis, read, xnnpack):
    before = float_file(lambda x: parts(x, axis, read), x=(None, 4, 8))
    graph = main_graph(before)
    assert "SPLIT" in ops_of(graph)
    drop_unread_parts(graph)
    assert "SPLIT" not in ops_of(graph)
    assert ops_of(graph).count("SLICE") == len(read)
    found, wanted = (run_file(file, X, xnnpack=xnnpack) for file in (pack(graph.model), before))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_split_whose_parts_are_all_read_stays():
    graph = main_graph(float_file(lambda x: parts(x, -1, range(4)), x=(None, 4, 8)))
    drop_unread_parts(graph)
    assert "SPLIT" in ops_of(graph) and "SLICE" not in ops_of(graph)
