"""Prune a model in one step, without training."""

from __future__ import annotations

import keras

from tfcompress.edge.arguments import check_number
from tfcompress.model.filters import Filters
from tfcompress.model.kernels import select

from . import masks
from .apply import Scope, apply_mask, check_arguments, check_structure, make_masks, score
from .importance import Importance, get
from .patterns import NofM, Structure

__all__ = ["prune_weights"]


def prune_weights(
    model: keras.Model,
    sparsity: float | None = None,
    *,
    threshold: float | None = None,
    filters: Filters = None,
    structure: Structure = None,
    scope: Scope = "layer",
    importance: str | Importance = "magnitude",
    depthwise: bool = False,
) -> None:
    """Prune the kernels of a model in place, in one step.

    Later training changes the zeros again. To keep them, fine-tune with `KeepZeros`.

    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10)])
    >>> prune_weights(model, sparsity=0.8)
    >>> int(np.count_nonzero(model.layers[0].kernel))
    20

    Args:
        model: A built model.
        sparsity: Share of the weights that become zero, in [0, 1). With `masks.NofM` it may be left
            out, and the full pattern is made. Defaults to None.
        threshold: Instead of `sparsity`: every weight that scores at most this becomes zero; with
            the default importance, every weight with `|w| <= threshold`.
        filters: Which layers: a regular expression searched in the layer's path, a list of layers
            or names, or a function of the layer. Defaults to all with trainable kernels.
        structure: Pattern of the zeros: `masks.SMALL_FILE`, `masks.FAST_DENSE`, any other
            `masks.Block`, `masks.NofM`, or `None` (the default) for any.
        scope: `"layer"` (the default) prunes each kernel to `sparsity`; `"global"` prunes all
            kernels together.
        importance: Name of a registered importance, or a function from weights to scores. The
            weights with the lowest scores are pruned first. Defaults to `"magnitude"`.
        depthwise: Whether depthwise kernels are pruned too. Defaults to False.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has a wrong value, not exactly one of `sparsity` and `threshold` is
            given, nothing matches `filters`, or a kernel holds NaN. The model is then unchanged.
    """
    check_arguments(structure, scope, depthwise)
    importance = get(importance)
    if sparsity is None and threshold is None and isinstance(structure, NofM):
        sparsity = structure.sparsity
    if (sparsity is None) == (threshold is None):
        raise ValueError(
            "Give one of `sparsity` and `threshold`. "
            f"Received: sparsity={sparsity!r}, threshold={threshold!r}"
        )
    if sparsity is not None:
        sparsity = check_number("sparsity", sparsity, 0, below=1)
    if threshold is not None:
        threshold = check_number("threshold", threshold, 0)
    chosen = select(model, filters, depthwise)
    weights = [kernel.numpy() for kernel in chosen]
    if sparsity is not None:
        check_structure(chosen, structure)
        kept = make_masks(chosen, weights, sparsity, structure, scope, importance)
    else:
        if structure is not None or scope != "layer":
            raise ValueError(
                "`threshold` decides on each weight by itself, so it goes with neither `structure` "
                f"nor `scope`. Received: structure={structure!r}, scope={scope!r}"
            )
        kept = [
            masks.threshold(score(kernel, values, importance), threshold)  # type: ignore[arg-type]
            for kernel, values in zip(chosen, weights, strict=True)
        ]
    for kernel, mask, values in zip(chosen, kept, weights, strict=True):
        apply_mask(kernel, mask, values)
