"""`KeepZeros`: a callback that keeps zeros at zero while a model trains."""

from __future__ import annotations

import warnings

import numpy as np

from tfcompress.model.filters import Filters

from .mask_callback import MaskCallback

__all__ = ["KeepZeros"]


class KeepZeros(MaskCallback):
    """Keep every weight at zero that is exactly zero when training begins, for fine-tuning.

    >>> import keras
    >>> from tfcompress import prune_weights
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> model.compile("sgd", "mse")
    >>> prune_weights(model, sparsity=0.75)
    >>> x, y = np.ones((32, 8)), np.ones((32, 4))
    >>> history = model.fit(x, y, verbose=0, callbacks=[KeepZeros()])
    >>> history.history["sparsity"]
    [0.75]

    Depthwise kernels are included.

    Args:
        filters: Which layers: a regular expression searched in the layer's path, a list of layers
            or names, or a function of the layer. Defaults to all with trainable kernels.

    Raises:
        TypeError: `filters` has the wrong type.
        ValueError: When training begins: nothing matches `filters`.
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
