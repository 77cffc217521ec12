"""Pruning once, now; and the steps that pruning on a schedule repeats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
import numpy.typing as npt

from tfcompress.model.filters import Filters
from tfcompress.model.kernels import Kernel, select

from . import masks as _masks
from .importance import Importance, get
from .masks import Structure

__all__ = ["prune_weights"]

Scope: TypeAlias = Literal["layer", "global"]
Array: TypeAlias = npt.NDArray[Any]


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
    """Prune a model once, now, in place.

    Nothing keeps the zeros at zero if training goes on: for that, see `KeepZeros`.

    >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10)])
    >>> prune_weights(model, sparsity=0.8)
    >>> int(np.count_nonzero(model.layers[0].kernel))
    20

    Args:
        model: A built model.
        sparsity: Share of the weights that become zero, in [0, 1). With `masks.NofM` it may be left
            out, and the full pattern is made.
        threshold: Instead: every weight that scores at most this becomes zero; by magnitude,
            `|w| <= threshold`.
        filters: Which layers: a regular expression searched in the layer's path, a list of layers
            or names, or a function of the layer. Defaults to all with trainable kernels.
        structure: Pattern of the zeros: `masks.SMALL_FILE`, `masks.FAST_DENSE`, any other
            `masks.Block`, `masks.NofM`, or `None` (the default).
        scope: `"layer"` (the default) prunes each kernel to `sparsity`; `"global"` all together.
        importance: Name of a registered importance, or a function from weights to scores. The
            weights with the lowest scores go first. Defaults to `"magnitude"`.
        depthwise: Whether depthwise kernels are pruned too. Defaults to False.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has a wrong value, not one of `sparsity` and `threshold` is
            given, nothing matches `filters`, or a kernel holds NaN. The model is then unchanged.
    """
    check_arguments(structure, scope)
    importance = get(importance)
    if sparsity is None and threshold is None and isinstance(structure, _masks.NofM):
        sparsity = structure.sparsity
    if (sparsity is None) == (threshold is None):
        raise ValueError(
            "Give one of `sparsity` and `threshold`. "
            f"Received: sparsity={sparsity!r}, threshold={threshold!r}"
        )
    chosen = select(model, filters, depthwise)
    weights = [kernel.numpy() for kernel in chosen]
    if sparsity is not None:
        if not 0.0 <= sparsity < 1.0:
            raise ValueError(f"`sparsity` must be in [0, 1). Received: sparsity={sparsity!r}")
        check_structure(chosen, structure)
        new = make_masks(chosen, weights, sparsity, structure, scope, importance)
    else:
        if structure is not None or scope != "layer":
            raise ValueError(
                "`threshold` decides on each weight by itself, so it goes with neither `structure` "
                f"nor `scope`. Received: structure={structure!r}, scope={scope!r}"
            )
        if not threshold >= 0.0:  # type: ignore[operator]  # NaN fails this too
            raise ValueError(f"`threshold` must be >= 0. Received: threshold={threshold!r}")
        new = [
            _masks.threshold(_scores(kernel, values, importance), threshold)  # type: ignore[arg-type]
            for kernel, values in zip(chosen, weights, strict=True)
        ]
    for kernel, mask, values in zip(chosen, new, weights, strict=True):
        apply_mask(kernel, mask, values)


def make_masks(
    chosen: Sequence[Kernel],
    weights: Sequence[Array],
    sparsity: float,
    structure: Structure,
    scope: Scope,
    importance: Importance,
    zeros_first: bool = False,
) -> list[npt.NDArray[np.bool_]]:
    scores = [_scores(k, values, importance) for k, values in zip(chosen, weights, strict=True)]
    if zeros_first:
        # By a hair only, so that the mean of a block with a zero in it stays what it was.
        lowest = min(np.nextafter(array.min(), -np.inf, dtype=array.dtype) for array in scores)
        scores = [np.where(v == 0, lowest, s) for v, s in zip(weights, scores, strict=True)]
    axes = [(kernel.output_axes, kernel.input_axes) for kernel in chosen]
    return _masks.compute(scores, sparsity, structure, scope, axes)


def _scores(kernel: Kernel, weights: Array, importance: Importance) -> Array:
    scores = np.asarray(importance(weights))
    if scores.shape != weights.shape:
        raise ValueError(
            f"`importance` must give a score for every weight of {kernel.path!r}, of shape "
            f"{weights.shape}. Received: shape {scores.shape}"
        )
    if not np.isfinite(scores).all():
        raise ValueError(
            f"{kernel.path!r} holds NaN or infinity, so its weights cannot be ranked: training "
            "has diverged, or the weights were loaded so."
        )
    return scores


def apply_mask(kernel: Kernel, mask: npt.NDArray[np.bool_], weights: Array) -> int:
    """Zero the weights where the mask is False; returns how many were not zero before."""
    # Ten times as fast as np.where; adding zero makes 0.0 of -0.0, which is no zero byte.
    pruned = weights * mask + weights.dtype.type(0.0)
    added = int(np.count_nonzero(weights)) - int(np.count_nonzero(pruned))
    if added:
        # Keras' own assign, around TensorFlow's, takes half as long again; masks may change often.
        kernel.variable.value.assign(pruned)
    return added


def check_arguments(structure: object, scope: object) -> None:
    if structure is not None and not isinstance(structure, _masks.NofM | _masks.Block):
        raise TypeError(
            f"`structure` must be masks.NofM, masks.Block or None. Received: {structure!r}"
        )
    if scope not in ("layer", "global"):
        raise ValueError(f'`scope` must be "layer" or "global". Received: scope={scope!r}')


def check_structure(chosen: Sequence[Kernel], structure: Structure) -> None:
    for kernel in chosen:
        if structure is not None and not kernel.input_axes:
            raise ValueError(
                f"{kernel.path!r} is depthwise and has no input axis for {structure!r} to run "
                "along. Leave it out with `filters` or depthwise=False."
            )
