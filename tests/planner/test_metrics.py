import math

import numpy as np
import pytest
from sklearn import metrics as reference

from tfcompress.planner.metrics import METRICS, check_metric, constant

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(50, 4)).astype("float32")
LABELS = RNG.integers(0, 4, 50)


def test_accuracy_of_classes_one_hot_targets_and_single_probabilities():
    accuracy = METRICS["accuracy"]
    expected = reference.accuracy_score(LABELS, SCORES.argmax(-1))
    assert accuracy({"y": SCORES}, LABELS) == expected
    assert accuracy({"y": SCORES}, LABELS[:, None]) == expected
    assert accuracy({"y": SCORES}, np.eye(4)[LABELS]) == expected
    single, binary = RNG.uniform(size=(50, 1)), RNG.integers(0, 2, 50)
    assert accuracy({"y": single}, binary) == reference.accuracy_score(binary, single[:, 0] > 0.5)


@pytest.mark.parametrize("name", ["mean_squared_error", "mean_absolute_error"])
def test_errors_of_a_regression_take_targets_without_their_last_axis(name):
    truth = RNG.normal(size=50)
    found = METRICS[name]({"y": SCORES[:, :1]}, truth)
    assert found == pytest.approx(getattr(reference, name)(truth, SCORES[:, 0]))
    assert not METRICS[name].higher_is_better


def test_function_gets_a_dict_of_several_outputs():
    metric = check_metric(lambda predictions, targets: len(predictions), False)
    assert metric({"a": SCORES, "b": SCORES}, None) == 2
    assert not metric.higher_is_better


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "good"])
def test_metric_that_gives_no_number_is_refused(value):
    with pytest.raises(ValueError, match="metric '<lambda>'"):
        check_metric(lambda predictions, targets: value, None)({"y": SCORES}, LABELS)


def test_metric_must_be_known():
    with pytest.raises(ValueError, match="'accuracy'"):
        check_metric("f1", None)
    with pytest.raises(TypeError, match="`metric`"):
        check_metric(None, None)
    with pytest.raises(ValueError, match="left out"):
        check_metric("accuracy", False)


def test_constant_is_what_a_model_without_knowledge_scores():
    share = np.bincount(LABELS).max() / 50
    assert constant(METRICS["accuracy"], {"y": SCORES}, LABELS) == share
    truth = RNG.normal(size=(50, 4))
    assert constant(METRICS["mean_squared_error"], {"y": SCORES}, truth) == pytest.approx(
        truth.var(0).mean()
    )
    spread = check_metric(lambda predictions, targets: predictions.std(0).max(), None)
    assert constant(spread, {"y": SCORES}, LABELS) == pytest.approx(0, abs=1e-6)
    failing = check_metric(lambda predictions, targets: targets.nothing, None)
    assert constant(failing, {"y": SCORES}, LABELS) is None
