"""The coverage bar: every architecture prunes to the target and trains."""

import keras
import numpy as np
import pytest

from tests.zoo.architectures import ARCHITECTURES, NAMES, SAMPLES
from tfcompress import schedules
from tfcompress.model.kernels import kernels
from tfcompress.pruning.prune import Prune


@pytest.mark.parametrize("name", NAMES)
def test_prunes_to_the_target_and_trains(name):
    case = ARCHITECTURES[name]()
    case.model.compile(keras.optimizers.SGD(1e-3), case.loss, jit_compile=False)
    before = {kernel.path: kernel.numpy().copy() for kernel in kernels(case.model)}
    assert before
    # Masks at step 1, with one step of training before and one after.
    history = case.model.fit(
        case.x,
        case.y,
        batch_size=SAMPLES // 2,
        verbose=0,
        callbacks=[Prune(schedules.OneShot(0.75, step=1))],
    )
    assert case.model.optimizer.iterations == 2
    moved = 0
    for kernel in kernels(case.model):
        weights = kernel.numpy()
        zeros = kernel.size - np.count_nonzero(weights)
        assert abs(zeros - 0.75 * kernel.size) <= 1, kernel.path
        assert np.isfinite(weights).all()
        moved += np.count_nonzero(weights[weights != 0] != before[kernel.path][weights != 0])
        assert kernel.variable.constraint is None
    assert moved
    assert history.history["sparsity"][0] == pytest.approx(0.75, abs=0.01)
