"""`MaskCallback`: the base of the callbacks that keep weights at zero while a model trains."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfcompress.model import constraints
from tfcompress.model.fit_callback import FitCallback, inner_optimizer

from .apply import apply_mask

__all__ = ["MaskCallback"]


class MaskCallback(FitCallback):
    """Put a mask on each selected kernel when training begins, and remove it when it ends."""

    _constraints: list[constraints.MaskConstraint]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Attach masks that keep all weights."""
        super().on_train_begin(logs)
        self._constraints = [
            constraints.attach_mask(kernel.variable, self.model, self, self.params)
            for kernel in self._kernels
        ]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log the share of zeros in all kernels that have a mask."""
        if logs is not None:
            masked = [v.numpy() for v in self.model.variables if constraints.mask_owners(v)]
            zeros = sum(weights.size - np.count_nonzero(weights) for weights in masked)
            logs["sparsity"] = float(zeros / sum(weights.size for weights in masked))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Apply the masks to averaged weights."""
        if self._started and inner_optimizer(self.model).use_ema:
            # `fit` has just replaced the weights by their averages, in which pruned weights are
            # not zero.
            for kernel, constraint in zip(self._kernels, self._constraints, strict=True):
                apply_mask(kernel, constraint.mask.numpy(), kernel.numpy())
        super().on_train_end(logs)
