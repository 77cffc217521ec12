import numpy as np
import pytest
import tensorflow as tf

from tfcompress.quantization.observers.moving_average import MovingAverage


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99])
def test_moving_average_of_the_extremes(momentum):
    batches = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    state = (tf.constant(0.0), tf.constant(0.0))
    low = high = None
    for index, batch in enumerate(batches):
        state = MovingAverage(momentum).update(*state, tf.constant(batch), tf.constant(index == 0))
        now = min(batch.min(), 0.0), max(batch.max(), 0.0)
        low = now[0] if low is None else momentum * low + (1 - momentum) * now[0]
        high = now[1] if high is None else momentum * high + (1 - momentum) * now[1]
        # Sums of a few float32 products.
        np.testing.assert_allclose(state, (low, high), rtol=1e-6, atol=1e-6)
