import numpy as np
import pytest
import tensorflow as tf

from tests.support.float_files import float_file, made_by, main_graph, ops_of
from tfcompress.converters.jobs.ranges import producers
from tfcompress.converters.jobs.tensor_values import Samples, computing, inputs_of, runs

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(4, 3)).astype("float32")
X = RNG.normal(size=(10, 4)).astype("float32")


def net(x):
    """Ops in a row, whose results could lie in one another's memory."""
    y = tf.exp(tf.nn.relu(x))
    return [tf.matmul(tf.tanh(y), KERNEL), tf.sin(x)]


def wanted(x):
    relu = np.maximum(x, 0)
    steps = {"RELU": relu, "EXP": np.exp(relu), "TANH": np.tanh(np.exp(relu)), "SIN": np.sin(x)}
    return {**steps, "FULLY_CONNECTED": steps["TANH"] @ KERNEL}


def test_batches_of_samples():
    samples = Samples({"a": np.arange(6), "b": np.arange(6) * 2}, batch_size=2)
    assert samples.size == 6
    found = [(batch["a"].tolist(), batch["b"].tolist()) for batch in samples.batches(4)]
    assert found == [([0, 1, 2, 3], [0, 2, 4, 6]), ([4, 5], [8, 10])]
    assert len(list(samples.batches())) == 3


@pytest.mark.parametrize("batch", [None, 1, 5], ids=["free", "one", "five"])
def test_runs_see_the_values_of_every_tensor(batch):
    graph = main_graph(float_file(net, x=(batch, 4)))
    tensors = [*inputs_of(graph.model).values(), *producers(graph)]
    found = {index: [] for index in tensors}
    rows = []
    for run in runs(graph, tensors, Samples({"x": X}, batch or 1)):
        rows.append(run.rows)
        for index in tensors:
            found[index].append(np.array(run.values(index)))
    assert rows == ([10] if batch is None else [batch] * (10 // batch))
    np.testing.assert_array_equal(np.concatenate(found[inputs_of(graph.model)["x"]]), X)
    for op, values in wanted(X).items():
        [index] = made_by(graph, op)
        # XNNPACK's float32 approximations of exp, tanh and sin, and sums of four products.
        np.testing.assert_allclose(np.concatenate(found[index]), values, rtol=1e-4, atol=1e-5)


def test_a_file_is_asked_for_inputs_only():
    graph = main_graph(float_file(net, x=(None, 4)))
    [given] = inputs_of(graph.model).values()
    [run] = runs(graph, [given], Samples({"x": X}))
    np.testing.assert_array_equal(run.values(given), X)


def test_wide_tensors_run_in_smaller_batches():
    graph = main_graph(float_file(lambda x: tf.nn.relu(x) * 2.0, x=(None, 512, 512)))
    samples = Samples({"x": np.ones((9, 512, 512), "float32")})
    rows = [run.rows for run in runs(graph, list(producers(graph)), samples)]
    assert sum(rows) == 9 and max(rows) < 9


def test_computing_holds_the_ops_that_are_needed_and_leaves_the_graph():
    graph = main_graph(float_file(net, x=(None, 4)))
    before = ops_of(graph), [int(index) for index in graph.tables.outputs]
    [exp] = made_by(graph, "EXP")
    part = computing(graph, [exp, *inputs_of(graph.model).values()])
    assert len(part.subgraphs[0].operators) == 2
    assert part.subgraphs[0].outputs.tolist() == [exp]
    assert (ops_of(graph), [int(index) for index in graph.tables.outputs]) == before
