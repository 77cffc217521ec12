"""Prune in a `fit` that is interrupted, resumed, or continues earlier training."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

from tests.pruning.training import Record, StopAt, fit, weights, zeros
from tfcompress import schedules
from tfcompress.pruning.prune import Prune


class TestResume:
    @pytest.mark.parametrize(
        ("begin", "end"),
        [
            (2, 20),
            pytest.param(2 / 32, 20 / 32, marks=pytest.mark.slow("the same in shares of the fit")),
        ],
    )
    def test_an_interrupted_fit_goes_on_as_if_it_had_not_been(self, data, tmp_path, begin, end):
        def train(callbacks):
            keras.utils.set_random_seed(1)
            model = keras.Sequential(
                [keras.Input((12,)), layers.Dense(10, "relu"), layers.Dense(3)]
            )
            model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
            schedule = schedules.Polynomial(0.0, 0.8, begin=begin, end=end, frequency=3)
            fit(model, data, [*callbacks, Prune(schedule)], epochs=4)
            return model

        whole = train([])
        folder = str(tmp_path / "batches")
        backup = keras.callbacks.BackupAndRestore(folder, save_freq=1)
        with pytest.raises(RuntimeError, match="power cut"):
            train([backup, StopAt(13, RuntimeError("power cut"))])
        # save_freq=1 redoes the epoch that was cut, from the weights and the step of the cut.
        resumed = train([keras.callbacks.BackupAndRestore(folder)])
        assert zeros(resumed) == zeros(whole) == [96, 24]

        folder = str(tmp_path / "epochs")
        with pytest.raises(RuntimeError, match="power cut"):
            train([keras.callbacks.BackupAndRestore(folder), StopAt(16, RuntimeError("power cut"))])
        resumed = train([keras.callbacks.BackupAndRestore(folder)])
        for left, right in zip(weights(resumed), weights(whole), strict=True):
            np.testing.assert_array_equal(left, right)

    def test_prune_may_stand_before_backup(self, mlp, data, tmp_path):
        schedule = schedules.Polynomial(0.0, 0.8, begin=2, end=20, frequency=3)
        folder = str(tmp_path)
        with pytest.raises(RuntimeError, match="power cut"):
            fit(
                mlp,
                data,
                [
                    Prune(schedule),
                    keras.callbacks.BackupAndRestore(folder),
                    StopAt(10, RuntimeError("power cut")),
                ],
            )
        for variable in [*mlp.variables, *mlp.optimizer.variables]:
            variable.assign(np.zeros(variable.shape))
        record = Record()
        backup = keras.callbacks.BackupAndRestore(folder)
        fit(mlp, data, [Prune(schedule), backup, record])
        assert record.steps[0] == 8
        share = schedule(8)
        assert record.batches[0] == [round(share * 120), round(share * 30)]
        assert zeros(mlp) == [96, 24]

    def test_between_updates_the_zeros_are_the_mask(self, mlp, data):
        schedule = schedules.Polynomial(0.0, 0.8, begin=0, end=24, frequency=6)
        with pytest.warns(UserWarning, match="before the schedule reaches"):
            fit(mlp, data, [Prune(schedule)], epochs=1)
        before = [w == 0 for w in weights(mlp)]
        during = []

        class Where(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                during.append([w == 0 for w in weights(self.model)])

        fit(mlp, data, [Prune(schedule), Where()], epochs=2)
        for step in during[:4]:  # 8, 9, 10, 11
            for old, new in zip(before, step, strict=True):
                np.testing.assert_array_equal(old, new)
        assert sum(np.sum(mask) for mask in during[4]) > sum(np.sum(mask) for mask in before)

    def test_a_schedule_that_began_long_ago_warns(self, mlp, data):
        fit(mlp, data, [], epochs=2)
        schedule = schedules.Polynomial(0.0, 0.5, begin=0, end=16, frequency=4)
        with pytest.warns(UserWarning, match=r"at step 16 .*50.0% of the weights.*add 16"):
            fit(mlp, data, [Prune(schedule)], epochs=1)
        assert zeros(mlp) == [60, 15]

    def test_one_shot_after_training_does_not_warn(self, mlp, data):
        fit(mlp, data, [], epochs=2)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            fit(mlp, data, [Prune(schedules.OneShot(0.5))], epochs=1)
            fit(mlp, data, [Prune(schedules.Constant(0.6))], epochs=1)

    @pytest.mark.parametrize("step", [2, 8])  # 8: resumed at the very step of the update
    def test_resumes_with_an_importance_that_does_not_love_zeros(self, mlp, data, step):
        def signed(values):
            return -abs(values)

        schedule = schedules.OneShot(0.5, step=step)
        fit(mlp, data, [Prune(schedule, importance=signed)], epochs=1)
        before = [w == 0 for w in weights(mlp)]
        fit(mlp, data, [Prune(schedule, importance=signed)], epochs=1)
        for mask, after in zip(before, weights(mlp), strict=True):
            np.testing.assert_array_equal(mask, after == 0)

    def test_keyboard_interrupt_leaves_nothing_behind_after_the_next_fit(self, data):
        own = keras.constraints.MaxNorm(1.0)
        model = keras.Sequential([keras.Input((12,)), layers.Dense(3, kernel_constraint=own)])
        model.compile("sgd", "mse", jit_compile=False)
        prune = Prune(schedules.OneShot(0.9))
        with pytest.raises(KeyboardInterrupt):
            fit(model, data, [prune, StopAt(3, KeyboardInterrupt())])
        assert model.layers[0].kernel.constraint is not own
        for again in (Prune(schedules.OneShot(0.5)), prune):
            model.layers[0].kernel.assign(np.ones((12, 3)))
            fit(model, data, [again], epochs=1)
            assert model.layers[0].kernel.constraint is own
            assert zeros(model) == [round(36 * again.schedule.final)]

    def test_layers_frozen_while_training(self, mlp, data):
        class Freeze(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 1:
                    self.model.trainable = False

        history = fit(mlp, data, [Prune(schedules.OneShot(0.5)), Freeze()])
        assert history.history["sparsity"] == [0.5, 0.5, 0.5]
        assert all(variable.constraint is None for variable in mlp.variables)
