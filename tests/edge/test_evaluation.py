import numpy as np
import pytest

from tfcompress import edge
from tfcompress.edge.system.tflite import PROBE

X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
Y = np.random.default_rng(1).integers(0, 4, 40)


def shares(top):
    """An independent count: the right class has fewer than K larger values in its row."""
    scores = X + 1
    return np.mean([(row > row[y]).sum() < top for row, y in zip(scores, Y, strict=True)])


@pytest.mark.parametrize(("metric", "top"), [("accuracy", 1), ("top-2", 2), ("top-4", 4)])
def test_shares_of_right_classes(metric, top):
    assert edge.evaluate(PROBE, X, Y, metric) == pytest.approx(shares(top))
    assert edge.evaluate(PROBE, X, np.eye(4)[Y], metric) == pytest.approx(shares(top))
    assert edge.evaluate(PROBE, X, Y[:, None], metric) == pytest.approx(shares(top))


def test_mean_error_and_functions():
    assert edge.evaluate(PROBE, X, X, "mean_error") == pytest.approx(1.0)
    assert edge.evaluate(PROBE, X, 2.0, lambda found, y: (found - X).mean() * y) == pytest.approx(2)


def test_quantized_files_and_fixed_batches(files, rng):
    image = rng.normal(size=(20, 8, 8, 1)).astype("float32")
    right = edge.Runner(files["float32"])(image).argmax(axis=1)
    assert edge.evaluate(files["fixed"], image, right) == 1.0
    exact = np.mean(edge.Runner(files["int8"])(image).argmax(axis=1) == right)
    assert edge.evaluate(files["int8"], image, right) == pytest.approx(exact)


def test_of_several_outputs_one_is_judged(files):
    pair = {"x_2": np.ones((2, 3), "float32"), "x_10": np.full((2, 3), 3.0, "float32")}
    with pytest.raises(ValueError, match="`output` must be one of"):
        edge.evaluate(files["two"], pair, np.zeros((2, 3)), "mean_error")
    two = np.full((2, 3), 2.0)
    assert edge.evaluate(files["two"], pair, two, "mean_error", output="y_10") == 0.0
    assert edge.evaluate(files["two"], pair, None, lambda found, y: len(found)) == 2


@pytest.mark.parametrize(
    ("y", "metric", "said"),
    [
        (Y[:3], "accuracy", "a class from 0 to 3 for each of 40 samples"),
        (Y + 1, "accuracy", "a class from 0 to 3"),
        (Y * 1.0, "accuracy", "a class from 0 to 3"),
        (Y, "mean_error", "numbers of the output's shape"),
        (Y, "f1", "accuracy, top-K such as top-5, mean_error, or a function"),
        (Y, "top-0", "accuracy, top-K"),
    ],
)
def test_rejects_what_does_not_fit(y, metric, said):
    with pytest.raises(ValueError, match=said):
        edge.evaluate(PROBE, X, y, metric)
