"""Prune under every way that Keras has to train: the zeros are right, and the rest learns."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

from tests.support.helpers import on_two_cpus
from tfcompress import schedules
from tfcompress.model.kernels import kernels
from tfcompress.pruning.keep_zeros import KeepZeros
from tfcompress.pruning.prune import Prune

SCHEDULE = schedules.Polynomial(0.0, 0.75, begin=2, end=12, frequency=3)


class Steps(keras.callbacks.Callback):
    """Zeros of the first kernel after each step, by the optimizer's step."""

    def __init__(self):
        super().__init__()
        self.zeros = {}

    def on_train_batch_begin(self, batch, logs=None):
        kernel = kernels(self.model)[0].numpy()
        self.zeros[int(self.model.optimizer.iterations.numpy())] = int(np.sum(kernel == 0))


def train(model, data, epochs=2, callbacks=()):
    """Eight batches an epoch."""
    before = [kernel.numpy().copy() for kernel in kernels(model)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        history = model.fit(
            *data,
            batch_size=8,
            epochs=epochs,
            verbose=0,
            callbacks=[Prune(SCHEDULE), *callbacks],
        )
    for kernel, old in zip(kernels(model), before, strict=True):
        new = kernel.numpy()
        assert np.sum(new == 0) == round(0.75 * new.size), kernel.path
        assert np.any(new[new != 0] != old[new != 0]), kernel.path
        assert np.isfinite(new).all()
    return history


def build():
    return keras.Sequential(
        [keras.Input((12,)), layers.Dense(10, "tanh"), layers.Dense(3, name="head")]
    )


@pytest.mark.parametrize(
    "how",
    [
        {"jit_compile": True},
        {"jit_compile": False},
        {"run_eagerly": True},
        {"jit_compile": True, "steps_per_execution": 4},
    ],
    ids=str,
)
def test_compiled_or_not(data, how):
    model = build()
    model.compile("adam", "mse", **how)
    train(model, data)


@pytest.mark.parametrize("steps", [3, 5, 8])
def test_steps_per_execution_updates_when_a_step_was_passed(data, steps):
    model = build()
    model.compile("adam", "mse", steps_per_execution=steps, jit_compile=False)
    record = Steps()
    train(model, data, callbacks=[record])
    for step, zeros in record.zeros.items():
        last = SCHEDULE.last_update(step)
        assert zeros == (0 if last is None else round(SCHEDULE(last) * 120)), step


def test_gradient_accumulation_counts_the_steps_that_update(data):
    model = build()
    optimizer = keras.optimizers.Adam(0.01, gradient_accumulation_steps=2)
    model.compile(optimizer, "mse", jit_compile=False)
    record = Steps()
    train(model, data, epochs=4, callbacks=[record])
    assert max(record.zeros) == 15
    for step, zeros in record.zeros.items():
        last = SCHEDULE.last_update(step)
        assert zeros == (0 if last is None else round(SCHEDULE(last) * 120)), step


def test_loss_scaling_that_skips_steps(data):
    """Gradients that overflow make the optimizer skip steps, which the schedule must not count."""
    model = build()
    inner = keras.optimizers.Adam(0.01)
    scaled = keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**127)
    model.compile(scaled, "mse", jit_compile=False)
    record = Steps()
    x, y = data
    train(model, (x, 100 * y), epochs=4, callbacks=[record])
    assert int(inner.iterations) < 32
    for step, zeros in record.zeros.items():
        last = SCHEDULE.last_update(step)
        assert zeros == (0 if last is None else round(SCHEDULE(last) * 120)), step


@pytest.mark.parametrize("accumulate", [None, 2])
def test_mixed_precision_as_keras_recommends_it(data, accumulate):
    """Under the global policy Keras puts loss scaling around the optimizer by itself."""
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_float16")
        model = build()
    finally:
        keras.config.set_dtype_policy(before)
    optimizer = keras.optimizers.Adam(0.01, gradient_accumulation_steps=accumulate)
    model.compile(optimizer, "mse", jit_compile=False)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    train(model, data, epochs=6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16", "float64"])
def test_precision(data, policy):
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(10, "tanh", dtype=policy),
            layers.Dense(3, name="head", dtype=policy),
        ]
    )
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False, auto_scale_loss=True)
    train(model, data, epochs=4)


@keras.saving.register_keras_serializable("test_training_modes")
class TwoLosses(keras.Model):
    """A custom train_step with two penalties and its own metric."""

    def train_step(self, data):
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            predicted = self(x, training=True)
            loss = keras.ops.mean((predicted - y) ** 2) + 0.1 * keras.ops.mean(predicted**2)
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return {"loss": loss}


def test_custom_train_step(data):
    x = keras.Input((12,))
    y = layers.Dense(3, name="head")(layers.Dense(10, "tanh")(x))
    model = TwoLosses(x, y)
    model.compile("adam", jit_compile=False)
    train(model, data)


def test_train_step_with_two_optimizer_steps(data):
    class Twice(TwoLosses):
        def train_step(self, data):
            super().train_step(data)
            return super().train_step(data)

    x = keras.Input((12,))
    model = Twice(x, layers.Dense(3, name="head")(layers.Dense(10, "tanh")(x)))
    model.compile("adam", jit_compile=False)
    record = Steps()
    train(model, data, callbacks=[record])
    assert list(record.zeros) == list(range(0, 32, 2))
    for step, zeros in record.zeros.items():
        last = SCHEDULE.last_update(step)
        assert zeros == (0 if last is None else round(SCHEDULE(last) * 120)), step


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.stack = [layers.Dense(10, "tanh"), layers.Dense(3)]

    def call(self, x):
        for layer in self.stack:
            x = layer(x)
        return x


def test_subclassed_model(data):
    model = Subclassed()
    model.compile("adam", "mse", jit_compile=False)
    # Keras on TensorFlow builds such a model inside its first step, which is too late.
    with pytest.raises(ValueError, match="call it on a batch of data first"):
        model.fit(*data, batch_size=8, verbose=0, callbacks=[Prune(SCHEDULE)])
    model(data[0][:1])
    train(model, data)


def unknown_length(data):
    import tensorflow as tf

    x, y = data

    def batches():
        for start in range(0, 64, 8):
            yield x[start : start + 8], y[start : start + 8]

    signature = (tf.TensorSpec((None, 12)), tf.TensorSpec((None, 3)))
    return tf.data.Dataset.from_generator(batches, output_signature=signature)


# At the end of the first epoch Keras warns that it did not know how long the data are.
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_datasets_of_unknown_length(data):
    model = build()
    model.compile("adam", "mse", jit_compile=False)
    fitted = {"verbose": 0, "shuffle": False, "callbacks": [Prune(SCHEDULE)]}
    # 8 or 9: the step that finds no data any more may count itself before it fails.
    with pytest.warns(UserWarning, match="ended at optimizer step [89], before.*0.75 at step 12"):
        model.fit(unknown_length(data), **fitted)
    model.fit(unknown_length(data), **fitted)
    assert np.sum(model.layers[0].kernel == 0) == 90


@pytest.mark.parametrize("callback", [lambda: Prune(SCHEDULE), KeepZeros])
def test_no_optimizer(data, callback):
    model = build()
    model.compile(optimizer=None, loss="mse")
    model.optimizer = None
    with pytest.raises(ValueError, match="without one"):
        model.fit(*data, verbose=0, callbacks=[callback()])


@pytest.mark.slow("starts a process with two devices")
def test_distributed_over_two_cpus():
    on_two_cpus("""
        import warnings
        from tfcompress import KeepZeros, Prune, prune_weights, schedules

        keras.utils.set_random_seed(0)
        with strategy.scope():
            layers = [keras.layers.Dense(10, "tanh"), keras.layers.Dense(3)]
            model = keras.Sequential([keras.Input((12,)), *layers])
            model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
        x = np.random.normal(size=(64, 12)).astype("float32")
        y = np.tanh(x[:, :3])
        schedule = schedules.Polynomial(0.0, 0.75, begin=2, end=12, frequency=3)

        def check(zeros):
            for layer, count in zip(model.layers, zeros):
                replicas = [value.numpy() for value in layer.kernel.value.values]
                assert len(replicas) == 2
                np.testing.assert_array_equal(*replicas)
                assert np.sum(replicas[0] == 0) == count, np.sum(replicas[0] == 0)

        class Equal(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                for layer in self.model.layers:
                    masks = layer.kernel.constraint.mask.value.values
                    np.testing.assert_array_equal(*[mask.numpy() for mask in masks])

        prune = Prune(schedule)
        history = model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[prune, Equal()])
        check([90, 22])
        before = model.layers[0].kernel.numpy()
        model.fit(x, y, batch_size=8, verbose=0, callbacks=[KeepZeros()])
        check([90, 22])
        assert (model.layers[0].kernel.numpy() != before).any()
        prune_weights(model, 0.9)
        check([108, 27])
    """)
