"""Masks on kernels for the time of one `fit`: what the pruning callbacks have in common."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from . import constraint as _constraint
from . import filters as _filters
from .filters import Filters
from .kernels import Kernel, select
from .once import apply_mask

__all__ = ["KeepZeros", "MaskCallback"]


class MaskCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Puts masks on kernels when training begins, and takes them off when it ends.

    Between the two the masks live in constraints, which the optimizer applies in its step. What
    they hold is set at the first `on_epoch_begin`, not at `on_train_begin`, where callbacks such as
    `BackupAndRestore` restore weights.
    """

    # There is no on_train_batch_end here on purpose: with one, Keras would wait for each step's
    # results before it starts the next.

    def __init__(self, filters: Filters, depthwise: bool) -> None:
        super().__init__()
        _filters.check(filters)
        self.filters = filters
        self.depthwise = depthwise
        self._kernels: list[Kernel] = []
        self._constraints: list[_constraint.MaskConstraint] = []
        self._started = False
        self._finishes_last = False

    def _start(self, epoch: int) -> None:
        """Compute the first masks."""
        raise NotImplementedError

    def _finish(self) -> None:
        """See to the weights when all other callbacks are done with them."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Put on masks that keep all."""
        if self.model.optimizer is None:
            raise ValueError(
                f"{type(self).__name__} works through the model's optimizer, and "
                f"{self.model.name!r} was compiled without one."
            )
        self._detach()
        for variable in self.model.variables:
            _constraint.detach_stale(variable, self.params)
        self._kernels = self._select()
        self._constraints = [
            _constraint.attach(kernel.variable, self.model, self, self.params)
            for kernel in self._kernels
        ]
        self._started = False
        # A step that was traced before does not know the constraints.
        self.model.make_train_function(force=True)
        history = getattr(self.model, "history", None)
        self._finishes_last = history is not None and history.params is self.params
        if self._finishes_last:
            _call_last(history, self._end)

    def _select(self) -> list[Kernel]:
        return select(self.model, self.filters, self.depthwise)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compute the first masks, at the first epoch."""
        if not self._started:
            self._start(epoch)
            self._started = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log the share of zeros in all kernels that have a mask."""
        if logs is not None:
            held = [v.numpy() for v in self.model.variables if _constraint.owners(v)]
            zeros = sum(weights.size - np.count_nonzero(weights) for weights in held)
            logs["sparsity"] = float(zeros / sum(weights.size for weights in held))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Apply the masks to averaged weights; end here if no later moment can be had."""
        if self._started and inner_optimizer(self.model).use_ema:
            # `fit` has just put the averages in the place of the weights, and those remember what
            # was pruned.
            for kernel, constraint in zip(self._kernels, self._constraints, strict=True):
                apply_mask(kernel, constraint.mask.numpy(), kernel.numpy())
        if not self._finishes_last:
            self._end()

    def _end(self) -> None:
        if self._started:
            self._finish()
        self._detach()
        self.model.train_function = None  # The next `fit` traces a step without the masks.

    def _detach(self) -> None:
        for kernel, constraint in zip(self._kernels, self._constraints, strict=True):
            _constraint.detach(kernel.variable, constraint)
        self._kernels, self._constraints = [], []


class KeepZeros(MaskCallback):
    """Keep every weight that is exactly zero when training begins at zero, for fine-tuning.

    >>> from tfcompress.once import prune_weights
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> model.compile("sgd", "mse")
    >>> prune_weights(model, sparsity=0.75)
    >>> x, y = np.ones((32, 8)), np.ones((32, 4))
    >>> history = model.fit(x, y, verbose=0, callbacks=[KeepZeros()])
    >>> history.history["sparsity"]
    [0.75]

    Depthwise kernels are included: a zero is a zero.

    Args:
        filters: Which layers: a regular expression searched in the layer's path, a list of layers
            or names, or a function of the layer. Defaults to all with trainable kernels.

    Raises:
        TypeError: If `filters` has the wrong type.
        ValueError: When training begins, if nothing matches `filters`.
    """

    def __init__(self, filters: Filters = None) -> None:
        super().__init__(filters, depthwise=True)

    def _start(self, epoch: int) -> None:
        zeros = 0
        for kernel, constraint in zip(self._kernels, self._constraints, strict=True):
            mask = kernel.numpy() != 0
            zeros += mask.size - np.count_nonzero(mask)
            constraint.mask.assign(mask)
        if not zeros:
            warnings.warn("KeepZeros has nothing to keep: no weight is zero.", stacklevel=2)


def inner_optimizer(model: keras.Model) -> keras.optimizers.Optimizer:
    """The model's optimizer, without the loss scaling that mixed precision puts around it."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def _call_last(history: keras.callbacks.History, function: Callable[[], None]) -> None:
    """Have `function` called once, after `history`'s own next `on_train_end`.

    `EarlyStopping` restores weights in `on_train_end`, and may stand after `Prune` in the list.
    `fit` appends its `History` behind all of the user's callbacks, and gives no other way to act
    after them.
    """
    original = history.on_train_end

    def on_train_end(logs: dict[str, Any] | None = None) -> None:
        vars(history).pop("on_train_end", None)
        original(logs)
        function()

    history.on_train_end = on_train_end
