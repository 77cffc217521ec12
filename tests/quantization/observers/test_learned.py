import tensorflow as tf

from tfcompress.quantization.observers.learned import Learned


def test_learned_takes_the_first_extremes_and_leaves_the_range_then():
    state = (tf.constant(0.0), tf.constant(0.0))
    state = Learned().update(*state, tf.constant([-1.0, 0.3, 2.0]), tf.constant(True))
    assert [float(bound) for bound in state] == [-1.0, 2.0]
    state = Learned().update(*state, tf.constant([-9.0, 9.0]), tf.constant(False))
    assert [float(bound) for bound in state] == [-1.0, 2.0]
    assert Learned.trainable
