"""Constraints on kernels for the time of one `fit`: what all callbacks here have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from . import constraints as _constraint
from . import filters as _filters
from .filters import Filters
from .kernels import Kernel, select

__all__ = ["HoldingCallback", "inner_optimizer"]


class HoldingCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Holds kernels by constraints, which the optimizer applies in its step, while a `fit` runs.

    What they hold is decided at the first `on_epoch_begin`, not at `on_train_begin`, where
    callbacks such as `BackupAndRestore` restore weights.
    """

    # There is no on_train_batch_end here on purpose: with one, Keras would wait for each step's
    # results before it starts the next.

    def __init__(self, filters: Filters, depthwise: bool) -> None:
        super().__init__()
        _filters.check(filters)
        self.filters = filters
        self.depthwise = depthwise
        self._kernels: list[Kernel] = []
        self._constraints: list[Any] = []  # one for each of these
        self._started = False
        self._finishes_last = False

    def _start(self, epoch: int) -> None:
        """Decide what to hold."""
        raise NotImplementedError

    def _finish(self) -> None:
        """See to the weights when all other callbacks are done with them."""

    def _select(self) -> list[Kernel]:
        return select(self.model, self.filters, self.depthwise)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the kernels."""
        if self.model.optimizer is None:
            raise ValueError(
                f"{type(self).__name__} works through the model's optimizer, and "
                f"{self.model.name!r} was compiled without one."
            )
        self._detach()
        for variable in self.model.variables:
            _constraint.detach_stale(variable, self.params)
        self._kernels = self._select()
        self._started = False
        # A step that was traced before does not know the constraints.
        self.model.make_train_function(force=True)
        history = getattr(self.model, "history", None)
        self._finishes_last = history is not None and history.params is self.params
        if self._finishes_last:
            _call_last(history, self._end)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Decide what to hold, at the first epoch."""
        if not self._started:
            self._start(epoch)
            self._started = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """End here if no later moment can be had."""
        if not self._finishes_last:
            self._end()

    def _end(self) -> None:
        if self._started:
            self._finish()
        self._detach()
        self.model.train_function = None  # The next `fit` traces a step without the constraints.

    def _detach(self) -> None:
        for kernel in self._kernels:
            _constraint.detach(kernel.variable, self)
        self._kernels, self._constraints = [], []


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
