"""`FitCallback`: the base of the callbacks that constrain kernels while one `fit` runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from . import constraints
from .checks import check_no_keras_2
from .filters import Filters
from .filters import check as check_filters
from .kernels import Kernel, select

__all__ = ["FitCallback", "inner_optimizer"]


class FitCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Constrain kernels while a `fit` runs; the optimizer applies the constraints in its step.

    `_start` sets the constraints up at the first `on_epoch_begin`, because callbacks such as
    `BackupAndRestore` restore weights in `on_train_begin`. `_finish` sees the weights when all
    other callbacks have ended.

    Args:
        filters: Which layers: a regular expression searched in the layer's path, a list of layers
            or names, a function of the layer, or None for all.
        depthwise: Whether depthwise kernels count.
    """

    # Without on_train_batch_end: with one, Keras waits for the results of each step before it
    # starts the next.

    def __init__(self, filters: Filters, depthwise: bool) -> None:
        super().__init__()
        check_filters(filters)
        self.filters = filters
        self.depthwise = depthwise
        self._kernels: list[Kernel] = []
        self._constraints: list[Any] = []  # one for each kernel
        self._started = False
        self._ends_last = False
        self._fit: dict[str, Any] | None = None  # Keras makes a new one for each `fit`

    def _start(self, epoch: int) -> None:
        """Set the constraints up."""
        raise NotImplementedError

    def _finish(self) -> None:
        """Adjust the weights after all other callbacks have ended."""

    def _select(self) -> list[Kernel]:
        return select(self.model, self.filters, self.depthwise)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the kernels."""
        if self._fit is not None and self._fit is self.params:
            raise ValueError(
                f"This {type(self).__name__} is in the list of callbacks twice. Leave one out."
            )
        self._fit = self.params
        check_no_keras_2(self.model)
        if self.model.optimizer is None:
            raise ValueError(
                f"{type(self).__name__} works through the model's optimizer, and "
                f"{self.model.name!r} was compiled without one."
            )
        self._detach()
        for variable in self.model.variables:
            constraints.detach_stale(variable, self.params)
        self._kernels = self._select()
        self._started = False
        # A step that was traced earlier does not contain the constraints.
        self.model.make_train_function(force=True)
        history = getattr(self.model, "history", None)
        self._ends_last = history is not None and history.params is self.params
        if self._ends_last:
            _call_after_all_callbacks(history, self._end)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the constraints up, at the first epoch."""
        if not self._started:
            self._start(epoch)
            self._started = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """End here if no later moment is available."""
        if not self._ends_last:
            self._end()

    def _end(self) -> None:
        self._fit = None
        if self._started:
            self._finish()
        self._detach()
        self.model.train_function = None  # The next `fit` traces a step without the constraints.

    def _detach(self) -> None:
        for kernel in self._kernels:
            constraints.detach(kernel.variable, self)
        self._kernels, self._constraints = [], []


def inner_optimizer(model: keras.Model) -> keras.optimizers.Optimizer:
    """Return the model's optimizer without the loss scaling that mixed precision adds around it."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def _call_after_all_callbacks(
    history: keras.callbacks.History, function: Callable[[], None]
) -> None:
    """Call `function` one time, after the next `on_train_end` of `history`.

    `EarlyStopping` restores weights in `on_train_end`, and may stand after `Prune` in the list.
    `fit` appends its `History` behind all callbacks of the user, and Keras has no other way to act
    after them. The patch removes itself.
    """
    original = history.on_train_end

    def on_train_end(logs: dict[str, Any] | None = None) -> None:
        vars(history).pop("on_train_end", None)
        original(logs)
        function()

    history.on_train_end = on_train_end
