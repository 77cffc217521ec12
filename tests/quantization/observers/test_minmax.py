import numpy as np
import tensorflow as tf

from tfcompress.quantization.observers.minmax import MinMax


def test_minmax_holds_every_value():
    batches = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    low, high = tf.constant(0.0), tf.constant(0.0)
    for index, batch in enumerate(batches):
        low, high = MinMax().update(low, high, tf.constant(batch), index == 0)
    assert (float(low), float(high)) == (batches.min(), batches.max())
