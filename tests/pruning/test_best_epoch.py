"""Prune with callbacks that choose or restore the best epoch."""

import warnings

import keras
import numpy as np
import pytest

from tests.pruning.training import fit, weights, zeros
from tfcompress import schedules
from tfcompress.model.kernels import kernels
from tfcompress.pruning.prune import Prune


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
        with pytest.raises(ValueError, match=r"'head/kernel' holds 30 NaN"):
            fit(mlp, data, [Prune(schedules.OneShot(0.5))], epochs=1)

    def test_terminate_on_nan_leaves_the_weights(self, mlp, data):
        x, y = data
        broken = (x, np.where(np.arange(64)[:, None] == 40, np.nan, y))
        prune = Prune(schedules.OneShot(0.5, step=12))
        with pytest.warns(UserWarning, match="left as they are"):
            fit(mlp, broken, [prune, keras.callbacks.TerminateOnNaN()], epochs=3)
        assert int(mlp.optimizer.iterations) == 6
