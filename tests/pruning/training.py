"""What the tests of pruning share: short fits, counts of zeros, callbacks that watch."""

import keras
import numpy as np

from tfcompress.model.kernels import kernels


def fit(model, data, callbacks, epochs=3, **kwargs):
    """Eight steps an epoch."""
    kwargs = {"batch_size": 8, "epochs": epochs, "verbose": 0, "shuffle": False, **kwargs}
    return model.fit(*data, callbacks=callbacks, **kwargs)


def zeros(model):
    return [int(np.sum(kernel.numpy() == 0)) for kernel in kernels(model, depthwise=True)]


def weights(model):
    return [kernel.numpy().copy() for kernel in kernels(model)]


class Record(keras.callbacks.Callback):
    """What the weights are at the end of each epoch, and at the begin of each batch."""

    def __init__(self):
        super().__init__()
        self.epochs, self.batches, self.steps = [], [], []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(zeros(self.model))

    def on_train_batch_begin(self, batch, logs=None):
        self.steps.append(int(self.model.optimizer.iterations))
        self.batches.append(zeros(self.model))


class StopAt(keras.callbacks.Callback):
    def __init__(self, step, error=None):
        super().__init__()
        self.step, self.error = step, error

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step:
            if self.error:
                raise self.error
            self.model.stop_training = True
