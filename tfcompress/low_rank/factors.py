"""Which layers can be factorized, and the layers that take their place."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from tfcompress.model.constraints import MaskConstraint
from tfcompress.model.kernels import DEPTHWISE
from tfcompress.model.layers import rule_class

from . import decompositions

__all__ = [
    "CONVOLUTIONS",
    "TYPES",
    "Weighted",
    "count",
    "full_rank",
    "kernel_of",
    "method",
    "replace",
    "variable",
    "why_not",
]

Array: TypeAlias = npt.NDArray[Any]
Weighted: TypeAlias = tuple[keras.layers.Layer, Array]
"""A layer that is not built yet, and the kernel that it will have."""

CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
TYPES = (layers.Dense, layers.EinsumDense, layers.Embedding, *CONVOLUTIONS)


def why_not(layer: keras.layers.Layer) -> str:
    """Return why a layer with a kernel cannot be factorized, or ""."""
    kind = type(layer).__name__
    if isinstance(layer, DEPTHWISE):
        return "depthwise"
    if isinstance(layer, CONVOLUTIONS) and layer.groups > 1:
        return "depthwise" if layer.kernel.shape[-2] == 1 else "grouped"
    if rule_class(layer) is layers.TimeDistributed:
        return "no rule for TimeDistributed; a Dense alone does the same at each step"
    if rule_class(layer) not in TYPES:
        return f"no rule for {kind}"
    if layer.quantization_mode is not None:
        return "quantized by Keras"
    if layer.lora_enabled:
        return "LoRA is enabled"
    if isinstance(layer, layers.EinsumDense) and _einsum(layer) is None:
        return f"no rule for the equation {layer.equation}"
    constraint = variable(layer).constraint
    if isinstance(constraint, MaskConstraint):
        return "has a pruning mask; factorize before pruning"
    if constraint is not None:
        return f"its kernel has a constraint ({type(constraint).__name__}) that factors cannot keep"
    return ""


def variable(layer: keras.layers.Layer) -> Any:
    """Return the kernel of a layer that can be factorized."""
    return layer.embeddings if isinstance(layer, layers.Embedding) else layer.kernel


def method(layer: keras.layers.Layer) -> str:
    """Return `"Tucker-2"` for a convolution over several positions, else `"SVD"`."""
    several = isinstance(layer, CONVOLUTIONS) and math.prod(layer.kernel_size) > 1
    return "Tucker-2" if several else "SVD"


def kernel_of(layer: keras.layers.Layer) -> Array:
    """Return the kernel in float64, of shape `(positions, inputs, outputs)`."""
    kernel: Array = keras.ops.convert_to_numpy(variable(layer)).astype(np.float64)
    if isinstance(layer, layers.EinsumDense):
        equation = _einsum(layer)
        assert equation is not None
        kernel = kernel.transpose(equation.axes)
        inputs = math.prod(kernel.shape[: equation.summed])
        return kernel.reshape(1, inputs, -1)
    return kernel.reshape(-1, *kernel.shape[-2:])


def full_rank(layer: keras.layers.Layer, kernel: Array) -> tuple[int, ...]:
    """Return the highest rank, or the two highest ranks of Tucker-2."""
    _, inputs, outputs = kernel.shape
    return (min(inputs, outputs),) if method(layer) == "SVD" else (inputs, outputs)


def count(layer: keras.layers.Layer, rank: tuple[int, ...], full: tuple[int, ...]) -> int:
    """Return how many layers take the place of one. Tucker-2 leaves out a matrix of full rank."""
    return 2 if method(layer) == "SVD" else 1 + sum(r < f for r, f in zip(rank, full, strict=True))


def replace(
    layer: keras.layers.Layer,
    kernel: Array,
    rank: tuple[int, ...],
    refine: int,
    names: Sequence[str],
) -> list[Weighted]:
    """Return the layers that take the place of one.

    Args:
        layer: A layer for which `why_not` returns "".
        kernel: Its kernel, from `kernel_of`.
        rank: One rank for an SVD, two for Tucker-2.
        refine: Sweeps of HOOI over what Tucker-2 begins with.
        names: Names of the new layers, as many as `count` says.

    Returns:
        Layers, each with its kernel in the shape that the layer has it. The last one has the bias,
        the activation and the activity regularizer of the old one; the values of the bias are left
        to copy.
    """
    if method(layer) == "Tucker-2":
        return _tucker2(layer, decompositions.tucker2(kernel, (rank[0], rank[1]), refine), names)
    left, right = decompositions.svd(kernel[0], rank[0])
    match layer:
        case layers.Dense():
            return _dense(layer, left, right, names)
        case layers.EinsumDense():
            return _einsum_dense(layer, left, right, names)
        case layers.Embedding():
            return _embedding(layer, left, right, names)
    return _pointwise(layer, left, right, names)


def _dense(layer: layers.Dense, left: Array, right: Array, names: Sequence[str]) -> list[Weighted]:
    first = layers.Dense(left.shape[1], use_bias=False, name=names[0], **_both(layer))
    last = layers.Dense(
        layer.units, use_bias=layer.use_bias, name=names[1], **_both(layer), **_end(layer)
    )
    return [(first, left), (last, right)]


def _embedding(
    layer: layers.Embedding, left: Array, right: Array, names: Sequence[str]
) -> list[Weighted]:
    both = _both(layer)
    table = layers.Embedding(
        layer.input_dim,
        left.shape[1],
        mask_zero=layer.mask_zero,
        embeddings_regularizer=both.pop("kernel_regularizer"),
        name=names[0],
        **both,
    )
    dense = layers.Dense(
        layer.output_dim,
        use_bias=False,
        activity_regularizer=layer.activity_regularizer,
        name=names[1],
        **_both(layer),
    )
    return [(table, left), (dense, right)]


def _einsum_dense(
    layer: layers.EinsumDense, left: Array, right: Array, names: Sequence[str]
) -> list[Weighted]:
    rank = left.shape[1]
    equation = _einsum(layer)
    assert equation is not None
    first = layers.EinsumDense(
        equation.first, (*equation.middle_shape, rank), name=names[0], **_both(layer)
    )
    last = layers.EinsumDense(
        equation.last,
        layer.partial_output_shape,
        bias_axes=layer.bias_axes,
        name=names[1],
        **_both(layer),
        **_end(layer),
    )
    sizes = [layer.kernel.shape[axis] for axis in equation.axes]
    return [
        (first, left.reshape(*sizes[: equation.summed], rank)),
        (last, right.reshape(rank, *sizes[equation.summed :])),
    ]


def _pointwise(layer: Any, left: Array, right: Array, names: Sequence[str]) -> list[Weighted]:
    first = _without_bias(layer, left, names[0], strides=layer.strides, padding=layer.padding)
    return [first, _with_bias(layer, right, names[1])]


def _tucker2(
    layer: Any, factors: tuple[Array | None, Array, Array | None], names: Sequence[str]
) -> list[Weighted]:
    reduce, core, expand = factors
    over_positions = {
        "kernel_size": layer.kernel_size,
        "strides": layer.strides,
        "padding": layer.padding,
        "dilation_rate": layer.dilation_rate,
    }
    made = [] if reduce is None else [_without_bias(layer, reduce, names[0])]
    if expand is None:
        return [*made, _with_bias(layer, core, names[-1], **over_positions)]
    made.append(_without_bias(layer, core, names[-2], **over_positions))
    return [*made, _with_bias(layer, expand, names[-1])]


def _without_bias(layer: Any, weights: Array, name: str, **options: Any) -> Weighted:
    return _convolution(layer, weights, name, use_bias=False, **options)


def _with_bias(layer: Any, weights: Array, name: str, **options: Any) -> Weighted:
    return _convolution(layer, weights, name, use_bias=layer.use_bias, **options, **_end(layer))


def _convolution(
    layer: Any, weights: Array, name: str, kernel_size: Sequence[int] | None = None, **options: Any
) -> Weighted:
    """Return a convolution of the same kind; by default over a single position."""
    size = kernel_size or (1,) * len(layer.kernel_size)
    new = rule_class(layer)(
        weights.shape[-1], size, data_format=layer.data_format, name=name, **options, **_both(layer)
    )
    return new, weights.reshape(*size, *weights.shape[-2:])


def _both(layer: Any) -> dict[str, Any]:
    """Return the arguments that every new layer takes from the old one."""
    return {
        "kernel_regularizer": variable(layer).regularizer,
        "dtype": layer.dtype_policy,
        "trainable": layer.trainable,
    }


def _end(layer: Any) -> dict[str, Any]:
    """Return the arguments that only the last layer takes from the old one."""
    names = ("activation", "bias_initializer", "bias_regularizer", "bias_constraint")
    return {name: getattr(layer, name) for name in (*names, "activity_regularizer")}


@dataclass(frozen=True)
class _Equation:
    """The equation of an `EinsumDense` as two equations.

    Attributes:
        first: Equation from the inputs to the rank.
        last: Equation from the rank to the outputs.
        middle_shape: Output shape of the first layer, as Keras takes it, without the rank.
        axes: Axes of the kernel, with the summed axes in front.
        summed: Number of axes that are summed over.
    """

    first: str
    last: str
    middle_shape: tuple[int | None, ...]
    axes: tuple[int, ...]
    summed: int


def _einsum(layer: layers.EinsumDense) -> _Equation | None:
    """Return two equations; None if a kernel axis is neither summed over nor new in the output."""
    operands, result = layer.equation.replace(" ", "").split("->")
    data, kernel = operands.split(",")
    before, after = ("..." if data.startswith("...") else "", "..." if data.endswith("...") else "")
    data, result = data.replace(".", ""), result.replace(".", "")
    summed = [label for label in kernel if label in data and label not in result]
    new = [label for label in kernel if label in result and label not in data]
    kept = [label for label in data if label not in summed]
    unclear = len(summed) + len(new) < len(kernel) or any(label not in result for label in kept)
    # Without an ellipsis the batch comes first, which Keras counts in no shape.
    if unclear or not summed or not new or (not before and kept[:1] != [result[0]]):
        return None
    rank = next(letter for letter in string.ascii_letters if letter not in data + kernel + result)
    skipped = 0 if before else 1
    sizes = dict(zip(result[skipped:], layer.partial_output_shape, strict=False))
    middle = f"{before}{''.join(kept)}{rank}{after}"
    return _Equation(
        f"{before}{data}{after},{''.join(summed)}{rank}->{middle}",
        f"{middle},{rank}{''.join(new)}->{before}{result}{after}",
        tuple(sizes[label] for label in kept[skipped:]),
        tuple(kernel.index(label) for label in (*summed, *new)),
        len(summed),
    )
