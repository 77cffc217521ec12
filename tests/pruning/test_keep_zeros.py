import numpy as np
import pytest

from tests.pruning.training import fit, weights, zeros
from tfcompress.pruning.keep_zeros import KeepZeros
from tfcompress.pruning.prune_weights import prune_weights


class TestKeepZeros:
    def test_zeros_stay_and_the_rest_trains(self, mlp, data):
        prune_weights(mlp, sparsity=0.7)
        before = weights(mlp)
        fit(mlp, data, [KeepZeros()], epochs=2)
        for old, new in zip(before, weights(mlp), strict=True):
            np.testing.assert_array_equal(old == 0, new == 0)
            # Not all: a hidden unit may be dead.
            assert np.mean(old[old != 0] != new[old != 0]) > 0.5

    def test_without_it_zeros_do_not_stay(self, mlp, data):
        prune_weights(mlp, sparsity=0.7)
        fit(mlp, data, [], epochs=1)
        assert sum(zeros(mlp)) < 20

    def test_filters(self, mlp, data):
        prune_weights(mlp, sparsity=0.5)
        fit(mlp, data, [KeepZeros("hidden")], epochs=1)
        assert zeros(mlp)[0] == 60
        assert zeros(mlp)[1] < 15

    def test_nothing_to_keep(self, mlp, data):
        with pytest.warns(UserWarning, match="no weight is zero"):
            fit(mlp, data, [KeepZeros()], epochs=1)
