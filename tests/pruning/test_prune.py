import csv
import json
import warnings
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support.helpers import as_id
from tfcompress import masks, schedules
from tfcompress.model.kernels import kernels
from tfcompress.pruning.prune import KeepZeros, Prune, prune_weights


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


class TestSchedule:
    def test_zeros_follow_the_schedule_at_every_step(self, mlp, data):
        schedule = schedules.Polynomial(0.1, 0.8, begin=3, end=18, frequency=5)
        record = Record()
        fit(mlp, data, [Prune(schedule), record])
        assert record.steps == list(range(24))
        for step, found in zip(record.steps, record.batches, strict=True):
            last = schedule.last_update(step)
            share = 0.0 if last is None else schedule(last)
            assert found == [round(share * 120), round(share * 30)], step

    def test_masks_are_the_smallest_weights(self, mlp, data):
        """Against a NumPy reference: weights at step 8, largest half of each kernel."""
        fit(mlp, data, [], epochs=1)
        dense = weights(mlp)
        mlp.optimizer.learning_rate = 0.0
        fit(mlp, data, [Prune(schedules.OneShot(0.5, step=10))], epochs=1)
        for before, after in zip(dense, weights(mlp), strict=True):
            order = np.argsort(np.abs(before).ravel())
            expected = before.ravel().copy()
            expected[order[: before.size // 2]] = 0.0
            np.testing.assert_array_equal(after.ravel(), expected)

    def test_zeros_are_positive_and_stay_where_they_are(self, mlp, data):
        masked = []

        class Where(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                masked.append([w == 0 for w in weights(self.model)])

        fit(mlp, data, [Prune(schedules.OneShot(0.5)), Where()], epochs=2)
        for step in masked[1:]:
            for first, now in zip(masked[0], step, strict=True):
                np.testing.assert_array_equal(first, now)
        for kernel in weights(mlp):
            assert not np.signbit(kernel[kernel == 0]).any()

    def test_validation_and_the_epochs_end_see_the_update_of_the_last_step(self, mlp, data):
        seen = []

        class Validation(keras.callbacks.Callback):
            def on_test_begin(self, logs=None):
                seen.append(zeros(self.model))

        prune = Prune(schedules.OneShot(0.5, step=8))
        history = fit(mlp, data, [prune, Validation()], epochs=1, validation_data=data)
        assert seen == [[60, 15]]
        assert history.history["sparsity"] == [0.5]

    def test_an_instance_can_be_used_twice(self, mlp, data):
        prune = Prune(schedules.Polynomial(0.0, 0.5, begin=0, end=4, frequency=2))
        fit(mlp, data, [prune], epochs=1)
        mlp.compile("sgd", "mse", jit_compile=False)
        other = keras.Sequential([keras.Input((12,)), layers.Dense(3)])
        other.compile("sgd", "mse", jit_compile=False)
        fit(other, data, [prune], epochs=1)
        assert (zeros(mlp), zeros(other)) == ([60, 15], [18])

    def test_a_schedule_that_goes_down_gives_weights_back(self, data):
        model = keras.Sequential([keras.Input((12,)), layers.Dense(3)])
        model.compile("sgd", "mse", jit_compile=False)
        fit(model, data, [Prune(schedules.Polynomial(0.9, 0.25, 0, 8, frequency=2))], epochs=2)
        assert zeros(model) == [9]


class TestResume:
    def test_an_interrupted_fit_goes_on_as_if_it_had_not_been(self, data, tmp_path):
        def train(callbacks):
            keras.utils.set_random_seed(1)
            model = keras.Sequential(
                [keras.Input((12,)), layers.Dense(10, "relu"), layers.Dense(3)]
            )
            model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
            schedule = schedules.Polynomial(0.0, 0.8, begin=2, end=20, frequency=3)
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


class TestOrdinaryModel:
    def test_a_step_traced_before_is_traced_anew(self, mlp, data):
        fit(mlp, data, [], epochs=1)
        fit(mlp, data, [Prune(schedules.OneShot(0.5))], epochs=1)
        assert zeros(mlp) == [60, 15]
        fit(mlp, data, [], epochs=1)  # and without masks again
        assert zeros(mlp) == [0, 0]

    def test_the_saved_file_knows_nothing_of_pruning(self, mlp, data, tmp_path):
        fit(mlp, data, [Prune(schedules.OneShot(0.5)), KeepZeros()], epochs=1)
        mlp.save(tmp_path / "model.keras")
        with zipfile.ZipFile(tmp_path / "model.keras") as file:
            config = file.read("config.json").decode()
        assert "tfcompress" not in config
        assert len(mlp.weights) == 4
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert zeros(loaded) == [60, 15]
        x, _ = data
        np.testing.assert_array_equal(loaded.predict(x, verbose=0), mlp.predict(x, verbose=0))

    def test_saved_while_training_too(self, mlp, data, tmp_path):
        path = str(tmp_path / "{epoch}.keras")
        fit(mlp, data, [Prune(schedules.OneShot(0.5)), keras.callbacks.ModelCheckpoint(path)])
        config = json.loads(zipfile.ZipFile(tmp_path / "2.keras").read("config.json"))
        assert "mask" not in json.dumps(config)
        assert zeros(keras.models.load_model(tmp_path / "2.keras")) == [60, 15]

    def test_the_users_constraint_holds_and_is_given_back(self, data):
        own = keras.constraints.UnitNorm()
        model = keras.Sequential([keras.Input((12,)), layers.Dense(3, kernel_constraint=own)])
        model.compile("sgd", "mse", jit_compile=False)
        norms = []

        class Norms(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                norms.append(np.linalg.norm(self.model.layers[0].kernel, axis=0))

        # No learning: the constraint is all that moves the weights, and zeros have no norm.
        model.optimizer.learning_rate = 0.0
        fit(model, data, [Prune(schedules.OneShot(0.5)), Norms()], epochs=1)
        assert model.layers[0].kernel.constraint is own
        assert zeros(model) == [18]
        np.testing.assert_allclose(norms[0], 1.0, rtol=1e-5)  # float32

    def test_history_is_left_clean(self, mlp, data):
        history = fit(mlp, data, [Prune(schedules.OneShot(0.5))], epochs=1)
        assert "on_train_end" not in vars(history)


class TestLogs:
    def test_history_csv_and_tensorboard(self, mlp, data, tmp_path):
        schedule = schedules.Polynomial(0.0, 0.5, begin=0, end=16, frequency=8)
        log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
        board = keras.callbacks.TensorBoard(str(tmp_path), write_graph=False)
        history = fit(mlp, data, [Prune(schedule), log, board])
        shares = [schedule(step) for step in (8, 16, 24)]
        expected = [(round(share * 120) + round(share * 30)) / 150 for share in shares]
        assert history.history["sparsity"] == expected
        with (tmp_path / "log.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [float(row["sparsity"]) for row in rows] == expected
        events = EventAccumulator(str(tmp_path / "train")).Reload().Tensors("epoch_sparsity")
        written = [float(tf.make_ndarray(event.tensor_proto)) for event in events]
        assert written == [np.float32(share) for share in expected]

    def test_progress_bar(self, mlp, data, capsys):
        fit(mlp, data, [Prune(schedules.OneShot(0.5))], epochs=1, verbose=2)
        assert "sparsity: 0.5" in capsys.readouterr().out

    def test_two_callbacks_log_one_figure(self, mlp, data):
        first = Prune(schedules.OneShot(0.5), filters="hidden")
        second = Prune(schedules.OneShot(0.9), filters="head")
        history = fit(mlp, data, [first, second], epochs=1)
        assert zeros(mlp) == [60, 27]
        assert history.history["sparsity"] == [87 / 150]


class TestBestEpoch:
    """The model ends at the target, whoever restores which weights when."""

    schedule = schedules.Polynomial(0.0, 0.8, begin=4, end=20, frequency=4)

    def stopping(self, **kwargs):
        # To this one the first epoch, which is the densest, is the best.
        return keras.callbacks.EarlyStopping(
            "sparsity", mode="min", restore_best_weights=True, **{"patience": 5, **kwargs}
        )

    def test_restored_dense_weights_are_pruned_with_a_warning(self, mlp, data):
        stopping = self.stopping()
        with pytest.warns(UserWarning, match=r"went to zero when training ended.*then="):
            fit(mlp, data, [Prune(self.schedule), stopping], epochs=5)
        assert stopping.best_epoch == 0
        assert zeros(mlp) == [96, 24]

    def test_stopping_before_prune_in_the_list(self, mlp, data):
        class First(keras.callbacks.EarlyStopping):
            def on_epoch_end(self, epoch, logs=None):
                super().on_epoch_end(epoch, {"loss": epoch})

        stopping = First("loss", mode="min", patience=5, restore_best_weights=True)
        with pytest.warns(UserWarning, match="went to zero when training ended"):
            fit(mlp, data, [stopping, Prune(self.schedule)], epochs=5)
        assert zeros(mlp) == [96, 24]

    def test_stopped_before_the_end(self, mlp, data):
        with pytest.warns(UserWarning, match="went to zero when training ended"):
            fit(mlp, data, [Prune(self.schedule), self.stopping(patience=1)], epochs=9)
        assert int(mlp.optimizer.iterations) == 16
        assert zeros(mlp) == [96, 24]
        assert all(kernel.variable.constraint is None for kernel in kernels(mlp))

    def test_the_weights_that_go_are_the_smallest_of_those_restored(self, mlp, data):
        stopping = self.stopping()
        with pytest.warns(UserWarning, match="went to zero"):
            fit(mlp, data, [Prune(self.schedule), stopping], epochs=5)
        for best, after in zip(stopping.best_weights[::2], weights(mlp), strict=True):
            kept = after != 0
            np.testing.assert_array_equal(best[kept], after[kept])
            assert np.abs(best[kept]).min() >= np.abs(best[~kept]).max()

    def test_then_sees_finished_models_only(self, mlp, data, tmp_path):
        seen = []

        class Seen(keras.callbacks.EarlyStopping):
            def on_epoch_end(self, epoch, logs=None):
                seen.append((epoch, logs["sparsity"], zeros(self.model)))
                super().on_epoch_end(epoch, logs)

        stopping = Seen("loss", mode="max", patience=1, restore_best_weights=True)
        checkpoint = keras.callbacks.ModelCheckpoint(
            str(tmp_path / "best.keras"), monitor="loss", mode="max", save_best_only=True
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            fit(mlp, data, [Prune(self.schedule, then=[stopping, checkpoint])], epochs=9)
        # Step 20 is in the third epoch, which ends at step 24.
        assert [epoch for epoch, *_ in seen] == [2, 3]
        assert all(entry[1:] == (0.8, [96, 24]) for entry in seen)
        assert stopping.best_epoch == 2
        assert zeros(mlp) == [96, 24]
        saved = keras.models.load_model(tmp_path / "best.keras")
        for left, right in zip(weights(saved), weights(mlp), strict=True):
            np.testing.assert_array_equal(left, right)

    def test_plain_checkpoint_saves_dense_epochs(self, mlp, data, tmp_path):
        """Why `then=` is there."""
        best = keras.callbacks.ModelCheckpoint(
            str(tmp_path / "best.keras"), monitor="sparsity", mode="min", save_best_only=True
        )
        fit(mlp, data, [Prune(self.schedule), best], epochs=4)
        assert sum(zeros(keras.models.load_model(tmp_path / "best.keras"))) < 120
        assert zeros(mlp) == [96, 24]

    def test_epochs_that_run_out_are_told_at_the_start_and_gone_on_with_later(self, mlp, data):
        with pytest.warns(UserWarning, match=r"ends at optimizer step 16, before.*0.8 at step 20"):
            fit(mlp, data, [Prune(self.schedule)], epochs=2)
        assert zeros(mlp) == [round(self.schedule(16) * 120), round(self.schedule(16) * 30)]
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            fit(mlp, data, [Prune(self.schedule)], epochs=1)
        assert zeros(mlp) == [96, 24]

    @pytest.mark.parametrize("overwrite", [None, 3])
    def test_averaged_weights_are_sparse(self, mlp, data, overwrite):
        mlp.compile(
            keras.optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=overwrite),
            "mse",
            jit_compile=False,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            fit(mlp, data, [Prune(self.schedule)], epochs=4)
        assert zeros(mlp) == [96, 24]

    def test_nan_weights_stop_with_the_layers_name(self, mlp, data):
        mlp.get_layer("head").kernel.assign(np.full((10, 3), np.nan))
        with pytest.raises(ValueError, match=r"'head/kernel' holds NaN"):
            fit(mlp, data, [Prune(schedules.OneShot(0.5))], epochs=1)

    def test_terminate_on_nan_leaves_the_weights(self, mlp, data):
        x, y = data
        broken = (x, np.where(np.arange(64)[:, None] == 40, np.nan, y))
        prune = Prune(schedules.OneShot(0.5, step=12))
        with pytest.warns(UserWarning, match="left as they are"):
            fit(mlp, broken, [prune, keras.callbacks.TerminateOnNaN()], epochs=3)
        assert int(mlp.optimizer.iterations) == 6


class TestStructures:
    def test_global_scope(self, mlp, data):
        mlp.get_layer("head").kernel.assign(np.full((10, 3), 10.0))
        fit(mlp, data, [Prune(schedules.OneShot(0.5), scope="global")], epochs=1)
        assert zeros(mlp) == [75, 0]

    def test_two_of_four(self, data):
        model = keras.Sequential([keras.Input((12,)), layers.Dense(4)])
        model.compile("sgd", "mse", jit_compile=False)
        x, _ = data
        schedule = schedules.Polynomial(0.0, 0.5, begin=0, end=6, frequency=2)
        fit(model, (x, x[:, :4]), [Prune(schedule, structure=masks.NofM(2, 4))], epochs=1)
        kernel = model.layers[0].kernel.numpy()
        assert (np.count_nonzero(kernel.T.reshape(4, 3, 4), axis=-1) == 2).all()

    def test_blocks(self, data):
        model = keras.Sequential([keras.Input((12,)), layers.Dense(8)])
        model.compile("sgd", "mse", jit_compile=False)
        x, _ = data
        prune = Prune(schedules.OneShot(0.75), structure=masks.Block(4, 1))
        fit(model, (x, x[:, :8]), [prune], epochs=1)
        blocks = (model.layers[0].kernel.numpy().reshape(12, 2, 4) == 0).sum(-1)
        assert sorted(blocks.ravel()) == [0] * 6 + [4] * 18

    def test_depthwise_has_no_inputs_to_run_along(self):
        model = keras.Sequential([keras.Input((8, 8, 4)), layers.DepthwiseConv2D(3, name="dw")])
        model.compile("sgd", "mse", jit_compile=False)
        x = np.zeros((8, 8, 8, 4))
        prune = Prune(schedules.OneShot(0.5), structure=masks.Block(1, 4), depthwise=True)
        with pytest.raises(ValueError, match="'dw/kernel' is depthwise"):
            model.fit(x, x[:, :6, :6], verbose=0, callbacks=[prune])
        with pytest.raises(ValueError, match="'dw/kernel' is depthwise"):
            prune_weights(model, 0.5, structure=masks.Block(1, 4), depthwise=True)
        prune_weights(model, 0.5, depthwise=True)
        assert zeros(model) == [18]


class TestTogether:
    def test_the_same_kernel_twice(self, mlp, data):
        pair = [Prune(schedules.OneShot(0.5)), Prune(schedules.OneShot(0.2), filters="head")]
        with pytest.raises(ValueError, match=r"'head/kernel' is already pruned"):
            fit(mlp, data, pair)
        prune = Prune(schedules.OneShot(0.5))
        fit(mlp, data, [prune], epochs=1)  # what the error left behind is in nobody's way
        assert all(kernel.variable.constraint is None for kernel in kernels(mlp))

    @pytest.mark.parametrize("first", [0, 1])
    def test_with_keep_zeros(self, mlp, data, first):
        kept = mlp.get_layer("hidden").kernel.numpy()
        kept[:, :4] = 0.0
        mlp.get_layer("hidden").kernel.assign(kept)
        callbacks = [KeepZeros(), Prune(schedules.OneShot(0.1, step=4), filters="head")]
        fit(mlp, data, callbacks[::-1] if first else callbacks, epochs=1)
        np.testing.assert_array_equal(mlp.get_layer("hidden").kernel.numpy()[:, :4], 0.0)
        assert zeros(mlp) == [48, 3]
        assert all(kernel.variable.constraint is None for kernel in kernels(mlp))


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
        with pytest.raises(ValueError, match=r"'head/kernel' holds NaN or infinity"):
            prune_weights(mlp, 0.5)
        assert zeros(mlp) == [0, 0]

    def test_unbuilt(self):
        with pytest.raises(ValueError, match="not built"):
            prune_weights(keras.Sequential([layers.Dense(3)]), 0.5)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Prune(0.5), TypeError, "tfcompress.schedules.*Received: 0.5"),
        (lambda: Prune(schedules.Constant(0.5), structure="2:4"), TypeError, "masks.NofM"),
        (lambda: Prune(schedules.Constant(0.5), scope="all"), ValueError, "scope='all'"),
        (lambda: Prune(schedules.Constant(0.5), importance="l1"), ValueError, "'l1'.*magnitude"),
        (lambda: Prune(schedules.Constant(0.5), importance=1), TypeError, "Received: 1"),
        (lambda: Prune(schedules.Constant(0.5), then=[1]), TypeError, "Received: 1"),
        (lambda: Prune(schedules.Constant(0.5), "("), ValueError, "regular expression"),
        (lambda: KeepZeros(7), TypeError, "Received: 7"),
        (
            lambda: Prune(schedules.Constant(0.6), structure=masks.NofM(2, 4)),
            ValueError,
            "2:4 must end at 0.5",
        ),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_filters_that_match_nothing(mlp, data):
    with pytest.raises(ValueError, match="hidden, head"):
        fit(mlp, data, [Prune(schedules.OneShot(0.5), filters="conv")])
    assert all(kernel.variable.constraint is None for kernel in kernels(mlp))
