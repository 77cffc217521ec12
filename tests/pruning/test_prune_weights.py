import keras
import numpy as np
import pytest
from keras import layers

from tests.pruning.training import weights, zeros
from tests.support.helpers import as_id
from tfcompress import masks
from tfcompress.pruning.prune_weights import prune_weights


class TestPruneWeights:
    def test_in_place_and_exact(self, mlp):
        before = weights(mlp)
        assert prune_weights(mlp, 0.75) is None
        for old, new in zip(before, weights(mlp), strict=True):
            assert np.sum(new == 0) == round(0.75 * old.size)
            np.testing.assert_array_equal(new[new != 0], old[new != 0])

    def test_threshold(self, mlp):
        before = weights(mlp)
        prune_weights(mlp, threshold=0.2)
        for old, new in zip(before, weights(mlp), strict=True):
            np.testing.assert_array_equal(new, np.where(np.abs(old) > 0.2, old, 0.0))

    def test_structure_alone(self, mlp):
        prune_weights(mlp, structure=masks.NofM(1, 4), filters="hidden")
        assert zeros(mlp) == [90, 0]

    def test_importance(self, mlp):
        prune_weights(mlp, 0.5, importance=lambda values: -np.abs(values), filters="head")
        kernel = mlp.get_layer("head").kernel.numpy()
        assert np.abs(kernel).max() < 0.5

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({}, "one of `sparsity` and `threshold`"),
            ({"sparsity": 0.5, "threshold": 0.1}, "one of `sparsity` and `threshold`"),
            ({"sparsity": 1.0}, "sparsity=1.0"),
            ({"sparsity": -0.5}, "sparsity=-0.5"),
            ({"sparsity": float("nan")}, "sparsity=nan"),
            ({"threshold": -0.1}, "threshold=-0.1"),
            ({"threshold": 0.1, "structure": masks.Block(1, 4)}, "neither `structure`"),
            ({"threshold": 0.1, "scope": "global"}, "scope='global'"),
            ({"sparsity": 0.5, "scope": "model"}, "scope='model'"),
            ({"sparsity": 0.6, "structure": masks.NofM(2, 4)}, "at most 0.5"),
            ({"sparsity": 0.5, "filters": "nothing"}, "hidden, head"),
            ({"sparsity": 0.5, "importance": np.sum}, "Received: shape"),
            ({"sparsity": 0.5, "importance": "magnitud"}, "Did you mean 'magnitude'"),
        ],
        ids=as_id,
    )
    def test_errors_leave_the_model_as_it_is(self, mlp, kwargs, message):
        before = weights(mlp)
        with pytest.raises(ValueError, match=message):
            prune_weights(mlp, **kwargs)
        for old, new in zip(before, weights(mlp), strict=True):
            np.testing.assert_array_equal(old, new)

    def test_nan_is_found_before_anything_is_changed(self, mlp):
        mlp.get_layer("head").kernel.assign(np.full((10, 3), np.inf))
        with pytest.raises(ValueError, match=r"'head/kernel' holds 30 NaN or infinite"):
            prune_weights(mlp, 0.5)
        assert zeros(mlp) == [0, 0]

    def test_unbuilt(self):
        with pytest.raises(ValueError, match="not built"):
            prune_weights(keras.Sequential([layers.Dense(3)]), 0.5)
