"""Masks on kernels for the time of one `fit`: what the pruning callbacks have in common."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from tfcompress.model import constraints as _constraint
from tfcompress.model.filters import Filters
from tfcompress.model.fit_callback import HoldingCallback, inner_optimizer

from .prune_weights import apply_mask

__all__ = ["KeepZeros", "MaskCallback"]


class MaskCallback(HoldingCallback):
    """Puts masks on kernels when training begins, and takes them off when it ends."""

    _constraints: list[_constraint.MaskConstraint]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Put on masks that keep all."""
        super().on_train_begin(logs)
        self._constraints = [
            _constraint.attach(kernel.variable, self.model, self, self.params)
            for kernel in self._kernels
        ]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log the share of zeros in all kernels that have a mask."""
        if logs is not None:
            held = [v.numpy() for v in self.model.variables if _constraint.owners(v)]
            zeros = sum(weights.size - np.count_nonzero(weights) for weights in held)
            logs["sparsity"] = float(zeros / sum(weights.size for weights in held))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Apply the masks to averaged weights."""
        if self._started and inner_optimizer(self.model).use_ema:
            # `fit` has just put the averages in the place of the weights, and those remember what
            # was pruned.
            for kernel, constraint in zip(self._kernels, self._constraints, strict=True):
                apply_mask(kernel, constraint.mask.numpy(), kernel.numpy())
        super().on_train_end(logs)


class KeepZeros(MaskCallback):
    """Keep every weight that is exactly zero when training begins at zero, for fine-tuning.

    >>> import keras
    >>> from tfcompress.pruning.prune_weights import prune_weights
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
