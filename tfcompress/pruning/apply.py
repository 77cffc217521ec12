"""Weights to masks to zeros: the steps that `Prune` and `prune_weights` have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from tfcompress.edge.arguments import check_bool, check_choice
from tfcompress.model.checks import check_finite_array
from tfcompress.model.kernels import Kernel

from . import masks
from .importance import Importance
from .patterns import Block, NofM, Structure

__all__ = [
    "Array",
    "Scope",
    "apply_mask",
    "check_arguments",
    "check_structure",
    "make_masks",
    "score",
]

Scope: TypeAlias = Literal["layer", "global"]
Array: TypeAlias = npt.NDArray[Any]


def check_arguments(structure: object, scope: object, depthwise: object) -> None:
    """Raise if an argument of pruning has the wrong type or value.

    Raises:
        TypeError: `structure` is no pattern, or `depthwise` no bool.
        ValueError: `scope` is unknown.
    """
    check_bool("depthwise", depthwise)
    if structure is not None and not isinstance(structure, NofM | Block):
        raise TypeError(
            f"`structure` must be masks.NofM, masks.Block or None. Received: {structure!r}"
        )
    check_choice("scope", scope, ("layer", "global"))


def check_structure(kernels: Sequence[Kernel], structure: Structure) -> None:
    """Raise if a kernel has no input axis for a pattern to run along.

    Raises:
        ValueError: A kernel is depthwise and there is a pattern.
    """
    for kernel in kernels:
        if structure is not None and not kernel.input_axes:
            raise ValueError(
                f"{kernel.path!r} is depthwise and has no input axis for {structure!r} to run "
                "along. Leave it out with `filters` or depthwise=False."
            )


def make_masks(
    kernels: Sequence[Kernel],
    weights: Sequence[Array],
    sparsity: float,
    structure: Structure,
    scope: Scope,
    importance: Importance,
    zeros_first: bool = False,
) -> list[npt.NDArray[np.bool_]]:
    """Score the weights of kernels and return the masks for a sparsity.

    Args:
        kernels: The kernels.
        weights: Their weights, float arrays.
        sparsity: Share of the weights that are removed, in [0, 1]; with a `Block`, share of the
            blocks.
        structure: The pattern of the zeros, or None.
        scope: `"layer"` or `"global"`.
        importance: Function from weights to scores.
        zeros_first: Whether weights that are zero already score below all others, whatever the
            importance says. Defaults to False.

    Returns:
        A boolean array for each kernel, of its shape.

    Raises:
        ValueError: A kernel holds NaN or infinity, the scores do not fit, or N:M allows less.
    """
    scores = [score(k, values, importance) for k, values in zip(kernels, weights, strict=True)]
    if zeros_first:
        # The next lower float, so that the mean of a block with a zero in it hardly changes.
        lowest = min(np.nextafter(array.min(), -np.inf, dtype=array.dtype) for array in scores)
        scores = [np.where(v == 0, lowest, s) for v, s in zip(weights, scores, strict=True)]
    axes = [(kernel.output_axes, kernel.input_axes) for kernel in kernels]
    return masks.compute(scores, sparsity, structure, scope, axes)


def score(kernel: Kernel, weights: Array, importance: Importance) -> Array:
    """Return the score of each weight of a kernel.

    Raises:
        ValueError: The weights or the scores hold NaN or infinity, or the shapes differ.
    """
    check_finite_array(f"Weight {kernel.path!r}", weights)
    scores = np.asarray(importance(weights))
    if scores.shape != weights.shape:
        raise ValueError(
            f"`importance` must give a score for every weight of {kernel.path!r}, of shape "
            f"{weights.shape}. Received: shape {scores.shape}"
        )
    if not np.isfinite(scores).all():
        raise ValueError(
            f"`importance` gives NaN or infinity for weights of {kernel.path!r}, which cannot be "
            f"ranked. Received: {int(np.sum(~np.isfinite(scores)))} such score(s) of {scores.size}"
        )
    return scores


def apply_mask(kernel: Kernel, mask: npt.NDArray[np.bool_], weights: Array) -> int:
    """Set the weights of a kernel to zero where a mask is False.

    Args:
        kernel: The kernel.
        mask: Boolean array of the kernel's shape.
        weights: The kernel's present weights.

    Returns:
        How many of the new zeros were not zero before.
    """
    # Ten times as fast as np.where; adding zero makes 0.0 of -0.0, which is no zero byte.
    pruned = weights * mask + weights.dtype.type(0.0)
    added = int(np.count_nonzero(weights)) - int(np.count_nonzero(pruned))
    if added:
        # Keras' own assign, around TensorFlow's, takes half as long again; masks may change often.
        kernel.variable.value.assign(pruned)
    return added
