"""`Prune`: a callback that prunes on a schedule while a model trains."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfcompress.edge.arguments import check_each, check_number
from tfcompress.model import constraints
from tfcompress.model.filters import Filters
from tfcompress.model.fit_callback import inner_optimizer
from tfcompress.model.kernels import Kernel

from .apply import Array, Scope, apply_mask, check_arguments, check_structure, make_masks
from .importance import Importance, get
from .mask_callback import MaskCallback
from .patterns import NofM, Structure
from .schedules import Polynomial, Schedule

__all__ = ["Prune"]


class Prune(MaskCallback):
    """Prune kernels on a schedule while the model trains.

    At the schedule's steps the least important weights become zero, and the optimizer's compiled
    step keeps them at zero from then on. If the schedule goes down, weights are released again. The
    model stays the Keras model that it was: no layer is wrapped, there is nothing to strip, and the
    saved file holds no class of this package.

    >>> from tfcompress import schedules
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.ones((32, 8)), np.ones((32, 2))
    >>> prune = Prune(schedules.Polynomial(0.0, 0.5, begin=0, end=4, frequency=2))
    >>> history = model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[prune])
    >>> history.history["sparsity"]
    [0.5, 0.5]
    >>> int(np.count_nonzero(model.layers[0].kernel))
    16

    **Steps** are `optimizer.iterations`. If training is interrupted and resumed, with
    `BackupAndRestore` or by loading a compiled model, the schedule and the masks continue where
    they stopped. (With `BackupAndRestore(save_freq=)` in steps, Keras repeats the epoch's steps so
    far.) A compiled model that has been trained before does not begin at step 0.

    **Logs**: `sparsity`, the share of zeros in all kernels that `Prune` or `KeepZeros` has a mask
    on, appears in the progress bar and in `History`. For `TensorBoard` and `CSVLogger`, put `Prune`
    before them in the list: Keras passes logs to callbacks in turn.

    **Choosing the best epoch**: the best epoch by validation is often one before the schedule's
    end, when the model was still dense. Give `EarlyStopping` and `ModelCheckpoint` as `then=[...]`:
    they then see only epochs that ended at the target sparsity. With a plain `EarlyStopping` in
    `fit`'s list the model still ends at the target: if it stops training early, or restores denser
    weights, the rest is pruned at the very end, in one step and without training, and a warning
    says how much. If the epochs run out before the schedule's end, the model stays as it is, a
    later `fit` can continue, and a warning says so at the start.

    **Interrupted**: after Ctrl-C the masks stay on, and a plain `fit` keeps the zeros too, until a
    `fit` with `Prune` or `KeepZeros` removes them at its end.

    **Together**: several `Prune` on different kernels, and `KeepZeros` on any, may be in one list.
    The user's own constraints are applied before the mask, and restored at the end.

    Args:
        schedule: Sparsity over optimizer steps or over shares of the fit, from
            `tfcompress.schedules`; or the sparsity to end at, in (0, 1), which is reached after
            three quarters of the fit: `Polynomial(0.0, sparsity, begin=0.0, end=0.75)`.
        filters: Which layers: a regular expression searched in the layer's path, a list of layers
            or names, or a function of the layer. Defaults to all with trainable kernels.
        structure: Pattern of the zeros: `masks.SMALL_FILE` (blocks that make a sparse .tflite
            small), `masks.FAST_DENSE` (blocks that TFLite's dense layers skip), any other
            `masks.Block`, `masks.NofM`, or `None` (the default) for any. A schedule for
            `NofM(n, m)` must end at `1 - n / m`.
        scope: `"layer"` (the default) prunes each kernel to the schedule's sparsity; `"global"`
            prunes all kernels together, by one ranking of their weights.
        importance: Name of a registered importance, or a function from weights to scores. The
            weights with the lowest scores are pruned first. Defaults to `"magnitude"`.
        depthwise: Whether depthwise kernels are pruned too. Defaults to False.
        then: Callbacks that see only epochs at the target sparsity: their `on_epoch_end` is called
            for those epochs alone. Their `on_epoch_begin`, `on_train_begin` and `on_train_end` are
            always called, and their methods for batches never. Defaults to none.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has a wrong value. When training begins: nothing matches `filters`,
            or another `Prune` has the same kernel. While it runs: a kernel holds NaN.
    """

    def __init__(
        self,
        schedule: Schedule | float,
        filters: Filters = None,
        *,
        structure: Structure = None,
        scope: Scope = "layer",
        importance: str | Importance = "magnitude",
        depthwise: bool = False,
        then: keras.callbacks.Callback | Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        super().__init__(filters, depthwise)
        if not isinstance(schedule, Schedule):
            if isinstance(schedule, bool) or not isinstance(schedule, int | float):
                raise TypeError(
                    "`schedule` must come from tfcompress.schedules, such as Constant(0.5), or be "
                    f"the sparsity to end at. Received: {schedule!r}"
                )
            sparsity = check_number("schedule", schedule, above=0, below=1)
            schedule = Polynomial(0.0, sparsity, begin=0.0, end=0.75)
        check_arguments(structure, scope, depthwise)
        if isinstance(structure, NofM) and abs(schedule.final - structure.sparsity) > 1e-6:
            raise ValueError(
                f"The schedule for {structure.n}:{structure.m} must end at "
                f"{structure.sparsity:.6g}. Received: {schedule!r}"
            )
        given = [then] if isinstance(then, keras.callbacks.Callback) else then
        check_each("then", given, keras.callbacks.Callback, "a Keras callback")
        self.then = list(given)
        self.schedule = schedule
        self._schedule = schedule  # in steps, once training begins
        self.structure = structure
        self.scope: Scope = scope
        self.importance = get(importance)
        self._masks: list[Array | None] = []
        self._last_update: int | None = None
        self._next_batch: int | None = None

    def _select(self) -> list[Kernel]:
        chosen = super()._select()
        check_structure(chosen, self.structure)
        for kernel in chosen:
            if any(isinstance(owner, Prune) for owner in constraints.mask_owners(kernel.variable)):
                raise ValueError(
                    f"{kernel.path!r} is already pruned by another Prune callback of this fit. "
                    "Give them `filters` that do not overlap."
                )
        return chosen

    def set_params(self, params: dict[str, Any]) -> None:
        """Set the parameters of `fit`, also for `then`."""
        super().set_params(params)
        for callback in self.then:
            callback.set_params(params)

    def set_model(self, model: keras.Model) -> None:
        """Set the model, also for `then`."""
        super().set_model(model)
        for callback in self.then:
            callback.set_model(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Attach masks that keep all weights."""
        super().on_train_begin(logs)
        for callback in self.then:
            callback.on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compute the first masks, at the first epoch."""
        super().on_epoch_begin(epoch, logs)
        self._follow(batch=0)
        for callback in self.then:
            callback.on_epoch_begin(epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Update the masks if the schedule says so."""
        # Reading the optimizer's step waits for the device, so it is read only when an update may
        # be due.
        if self._next_batch is not None and batch >= self._next_batch:
            self._follow(batch)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Update the masks for validation."""
        if self._started and self._kernels:
            self._follow(batch=0)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log `sparsity`; pass epochs that end at the target to `then`."""
        self._follow(batch=0)
        super().on_epoch_end(epoch, logs)
        if self._step() >= self._schedule.target_step:
            for callback in self.then:
                callback.on_epoch_end(epoch, logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """End `then` first, because it may restore weights."""
        for callback in self.then:
            callback.on_train_end(logs)
        super().on_train_end(logs)

    def _step(self) -> int:
        return int(self.model.optimizer.iterations.numpy())

    def _start(self, epoch: int) -> None:
        step = self._step()
        self._schedule = self._in_steps(step, epoch)
        self._masks = [None] * len(self._kernels)
        self._last_update = self._schedule.last_update(step)
        self._warned = False
        self._seen = (0, step)
        self._warn_if_too_short(step, epoch)
        if self._last_update is not None:
            sparsity = self._schedule(self._last_update)
            added = self._update(sparsity, zeros_first=True)
            if self._schedule(int(self._schedule.begin)) < sparsity and added > len(self._kernels):
                total = sum(kernel.size for kernel in self._kernels)
                warnings.warn(
                    f"The optimizer is at step {step} and the schedule began at "
                    f"{self._schedule.begin}, so {added / total:.1%} of the weights went to zero "
                    f"at once. To prune gradually, count in shares of the fit, compile the model "
                    f"anew, or add {step} to the schedule's `begin` and `end`.",
                    stacklevel=2,
                )

    def _in_steps(self, step: int, epoch: int) -> Schedule:
        """Return the schedule in optimizer steps of this fit, which may have been interrupted."""
        params = self.params or {}
        batches, epochs = params.get("steps"), params.get("epochs")
        if batches and epochs:
            every = inner_optimizer(self.model).gradient_accumulation_steps or 1
            first = max(0, step - epoch * batches // every)
            return self.schedule.in_steps(first, max(1, epochs * batches // every))
        if isinstance(self.schedule.begin, float):
            raise ValueError(
                f"{self.schedule!r} counts in shares of the fit, and the number of batches in an "
                "epoch is not known. Give `steps_per_epoch` to fit, or count in optimizer steps: "
                "`begin` and `end` as integers."
            )
        return self.schedule

    def _follow(self, batch: int) -> None:
        """Update the masks to the optimizer's step; `batch` is the number of the next batch."""
        step = self._step()
        last = self._schedule.last_update(step)
        if last is not None and last != self._last_update:
            self._update(self._schedule(last))
            self._last_update = last
        # A custom train_step may make several steps a batch: the first batch shows how many.
        batches, steps = batch - self._seen[0], step - self._seen[1]
        self._seen = (batch, step)
        following = self._schedule.next_update(step)
        if following is None:
            self._next_batch = None
        elif batches <= 0:
            self._next_batch = batch + 1
        else:
            self._next_batch = batch + max(1, (following - step) * batches // max(steps, batches))

    def _update(self, sparsity: float, zeros_first: bool = False) -> int:
        """Compute masks, apply them, and return how many weights became zero."""
        weights = [kernel.numpy() for kernel in self._kernels]
        new = make_masks(
            self._kernels,
            weights,
            sparsity,
            self.structure,
            self.scope,
            self.importance,
            zeros_first,
        )
        added = 0
        for index, (kernel, mask, values) in enumerate(
            zip(self._kernels, new, weights, strict=True)
        ):
            current = self._masks[index]
            if current is None or not np.array_equal(mask, current):
                self._constraints[index].mask.value.assign(mask)
                added += apply_mask(kernel, mask, values)
                self._masks[index] = mask
        return added

    def _warn_if_too_short(self, step: int, epoch: int) -> None:
        params = self.params or {}
        if not params.get("steps") or not params.get("epochs"):
            return
        batches = (params["epochs"] - epoch) * params["steps"]
        reached = step + batches // (inner_optimizer(self.model).gradient_accumulation_steps or 1)
        if reached < self._schedule.target_step:
            self._warned = True
            warnings.warn(
                f"Training ends at optimizer step {reached}, before the schedule reaches its "
                f"sparsity of {self._schedule.final:g} at step {self._schedule.target_step}: the "
                "model will not be pruned to it by this `fit`.",
                stacklevel=2,
            )

    def _finish(self) -> None:
        step = self._step()
        if step < self._schedule.target_step and not self.model.stop_training:
            if not self._warned:
                warnings.warn(
                    f"Training ended at optimizer step {step}, before the schedule reaches its "
                    f"sparsity of {self._schedule.final:g} at step {self._schedule.target_step}.",
                    stacklevel=2,
                )
            return
        if not all(np.isfinite(kernel.numpy()).all() for kernel in self._kernels):
            warnings.warn(
                "The weights hold NaN or infinity, and are left as they are.", stacklevel=2
            )
            return
        # With the zeros first, this changes nothing in a model that is at its target.
        self._masks = [None] * len(self._kernels)
        added = self._update(self._schedule.final, zeros_first=True)
        if added:
            total = sum(kernel.size for kernel in self._kernels)
            warnings.warn(
                f"{added / total:.1%} of the weights went to zero when training ended, without a "
                "step to make up for them, since training stopped before the schedule's end or "
                "denser weights were restored. To choose among finished models only, give "
                "EarlyStopping and ModelCheckpoint to Prune as `then=[...]`.",
                stacklevel=2,
            )
