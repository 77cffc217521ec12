"""Scores of weights, by name and as functions."""

import numpy as np
import pytest

from tfcompress import Prune, prune_weights, schedules
from tfcompress.pruning import importance


@pytest.fixture
def middle(monkeypatch):
    """A registered importance that goes as the test ends: weights around 0.2 score lowest."""
    monkeypatch.setattr(importance.IMPORTANCES, "_found", dict(importance.IMPORTANCES._found))

    @importance.register("middle")
    def middle(weights):
        return np.abs(weights - 0.2)

    return middle


def test_get_returns_a_registered_function_by_name_and_others_as_they_are(middle):
    assert importance.get("middle") is middle
    assert importance.get(np.square) is np.square
    assert importance.IMPORTANCES.names() == ["magnitude", "middle"]


def test_prune_weights_takes_the_name_of_a_registered_importance(middle, mlp):
    kernel = mlp.get_layer("head").kernel
    before = kernel.numpy()
    prune_weights(mlp, 0.5, filters="head", importance="middle")
    expected = np.abs(before - 0.2) > np.sort(np.abs(before - 0.2), axis=None)[before.size // 2 - 1]
    np.testing.assert_array_equal(kernel.numpy() != 0, expected)


def test_prune_takes_the_name_of_a_registered_importance(middle, mlp, data):
    prune = Prune(schedules.OneShot(0.5), filters="head", importance="middle")
    assert prune.importance is middle
    mlp.fit(*data, epochs=1, verbose=0, callbacks=[prune])
    assert np.count_nonzero(mlp.get_layer("head").kernel) == 15


def test_get_rejects_unknown_names_and_what_is_no_function():
    with pytest.raises(
        ValueError, match=r"no importance of weights named 'magnitde'.*Did you mean"
    ):
        importance.get("magnitde")
    with pytest.raises(TypeError, match="Received: importance=3"):
        importance.get(3)
