import csv
import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.pruning.training import Record, fit, weights, zeros
from tfcompress import masks, schedules
from tfcompress.model.kernels import kernels
from tfcompress.pruning.keep_zeros import KeepZeros
from tfcompress.pruning.prune import Prune
from tfcompress.pruning.prune_weights import prune_weights


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

    def test_a_number_is_reached_after_three_quarters_of_the_fit(self, mlp, data):
        record = Record()
        fit(mlp, data, [Prune(0.8), record], epochs=4)
        # Zhu and Gupta's polynomial over 24 of 32 steps, with an update at each.
        shares = [0.8 * (1 - (1 - min(step / 24, 1)) ** 3) for step in range(32)]
        assert record.batches == [[round(s * 120), round(s * 30)] for s in shares]

    def test_shares_are_those_of_the_fit_also_in_a_second_one(self, mlp, data):
        fit(mlp, data, [], epochs=2)
        record = Record()
        fit(mlp, data, [Prune(schedules.OneShot(0.5, step=0.5)), record], epochs=2)
        assert [found[0] for found in record.batches] == [0] * 8 + [60] * 8
        assert record.steps[0] == 16

    def test_shares_need_the_number_of_batches(self, mlp, data):
        batches = tf.data.Dataset.from_generator(
            lambda: iter([data]),
            output_signature=tuple(tf.TensorSpec(part.shape, part.dtype) for part in data),
        )
        with pytest.raises(ValueError, match="`steps_per_epoch` to fit"):
            mlp.fit(batches, callbacks=[Prune(0.5)], verbose=0)

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

    @pytest.mark.parametrize("make", [lambda: Prune(schedules.OneShot(0.5)), KeepZeros])
    def test_one_callback_twice_in_a_list(self, mlp, data, make):
        callback = make()
        with pytest.raises(ValueError, match=f"This {type(callback).__name__} is in .* twice"):
            fit(mlp, data, [callback, callback], epochs=1)
        prune_weights(mlp, 0.5)
        fit(mlp, data, [callback], epochs=1)
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


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Prune("0.5"), TypeError, "tfcompress.schedules.*Received: '0.5'"),
        (lambda: Prune(1), ValueError, "schedule=1"),
        (lambda: Prune(schedules.Constant(0.5), structure="2:4"), TypeError, "masks.NofM"),
        (lambda: Prune(schedules.Constant(0.5), scope="all"), ValueError, "scope='all'"),
        (lambda: Prune(schedules.Constant(0.5), importance="l1"), ValueError, "'l1'.*magnitude"),
        (lambda: Prune(schedules.Constant(0.5), importance=1), TypeError, "Received: importance=1"),
        (lambda: Prune(schedules.Constant(0.5), then=[1]), TypeError, r"Received: then\[0\]=1"),
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
