import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcompress.model.samples import InputSpec
from tfcompress.planner.data import check_data, examples

X, Y = np.arange(40, dtype="float32").reshape(10, 4), np.arange(10)
SPEC = [InputSpec("x", (None, 4), "float32")]
TWO = [InputSpec("a", (None, 4), "float32"), InputSpec("b", (None, 1), "float32")]


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return X[2 * index : 2 * index + 2], Y[2 * index : 2 * index + 2]


def test_examples_reads_arrays_and_data_sets_alike():
    data_set = tf.data.Dataset.from_tensor_slices((X, Y)).batch(3)
    for data in ((X, Y), data_set, Batches()):
        check_data("train", data)
        found = examples("train", data, SPEC)
        np.testing.assert_array_equal(found.x["x"], X)
        np.testing.assert_array_equal(found.y, Y)


def test_examples_takes_inputs_by_name_and_several_targets():
    pair = ({"a": X, "b": X[:, :1]}, {"one": Y, "two": 2 * Y})
    check_data("train", pair)
    found = examples("train", pair, TWO, most=2)
    assert found.x["b"].tolist() == [[0.0], [36.0]]
    assert found.y["two"].tolist() == [0, 18]
    assert found.first()["a"].shape == (1, 4)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, r"`train` must be \(x, y\)"),
        (X, r"`train` must be \(x, y\)"),
        ((X, None), r"`train` must be \(x, y\)"),
        ((X, ["a"]), r"`train` must be \(x, y\)"),
        ((X[:0], Y[:0]), "`train` is empty"),
        ((X, Y[:3]), r"Received: \[3, 10\]"),
        (tf.data.Dataset.from_tensor_slices((X, Y)).batch(2).repeat(), "data set that ends"),
    ],
)
def test_check_data_refuses_what_nothing_can_be_measured_with(data, words):
    with pytest.raises((TypeError, ValueError), match=words):
        check_data("train", data)


def test_examples_refuses_an_empty_data_set_and_one_without_targets():
    with pytest.raises(ValueError, match="`validation` is empty"):
        examples("validation", tf.data.Dataset.from_tensor_slices((X[:0], Y[:0])).batch(2), SPEC)
    with pytest.raises(ValueError, match="no targets"):
        examples("validation", tf.data.Dataset.from_tensor_slices(X).batch(2), SPEC)
