import numpy as np
import pytest

from tfcompress.planner.data import Examples
from tfcompress.planner.estimates import few_of
from tfcompress.planner.metrics import METRICS, check_metric

RNG = np.random.default_rng(0)
COUNT = 5_000
TRUTH = RNG.integers(0, 4, COUNT)
EXAMPLES = Examples({"x": np.arange(COUNT)}, TRUTH)


def outputs(wrong):
    """Scores that are right but for a share of the samples."""
    found = np.where(RNG.random(COUNT) < wrong, (TRUTH + 1) % 4, TRUTH)
    return {"y": np.eye(4)[found]}


def on_few(few, scores):
    return {"y": scores["y"][few.examples.x["x"]]}


def test_loss_of_few_samples_is_that_of_all_within_its_error():
    accuracy = METRICS["accuracy"]
    off = []
    for _ in range(40):
        original, file = outputs(0.02), outputs(0.08)
        few = few_of(EXAMPLES, original, accuracy)
        assert len(few) == 500
        loss, error = few.loss(accuracy, on_few(few, file))
        truth = accuracy(original, TRUTH) - accuracy(file, TRUTH)
        off.append((loss - truth) / error)
    # Of a normal distribution; of t with 9 degrees of freedom, 1.13.
    assert 0.75 < np.std(off) < 1.4
    assert abs(np.mean(off)) < 0.5


def test_error_of_a_mean_is_the_textbook_one():
    truth = RNG.normal(size=(COUNT, 1))
    error = METRICS["mean_squared_error"]
    original = {"y": truth + 0.1 * RNG.normal(size=truth.shape)}
    file = {"y": truth + 0.3 * RNG.normal(size=truth.shape)}
    few = few_of(Examples(EXAMPLES.x, truth), original, error)
    rows = few.examples.x["x"]
    worse = (file["y"] - truth)[rows] ** 2 - (original["y"] - truth)[rows] ** 2
    loss, found = few.loss(error, on_few(few, file))
    assert loss == pytest.approx(worse.mean())
    assert found == pytest.approx(worse.std() / np.sqrt(500), rel=0.6)


def test_few_data_are_all_used():
    examples = Examples({"x": np.arange(500)}, TRUTH[:500])
    assert few_of(examples, {"y": np.eye(4)[TRUTH[:500]]}, METRICS["accuracy"]) is None


def test_metric_that_takes_all_data_only_is_computed_on_all():
    whole = check_metric(lambda predictions, _: np.mean(predictions.argmax(-1) == TRUTH), None)
    assert few_of(EXAMPLES, outputs(0.1), whole) is None
