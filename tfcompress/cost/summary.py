"""`summary`: measure what a model costs: parameters, zeros, multiply-accumulates and bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, overload

import keras
import numpy as np

from tfcompress.edge.arguments import refuse
from tfcompress.model.checks import check_built
from tfcompress.model.kernels import is_kernel, kernels_of
from tfcompress.model.layers import own_weights, walk
from tfcompress.model.quantized import LayerQuantizer, TensorQuantizer, is_step_input

from .comparison import Comparison
from .layer_summary import LayerSummary, Summary
from .macs import add_macs, count_macs

__all__ = ["summary"]

ROUNDING = 2.0**-24
"""Half a unit in the last place of float32: a term below this share of a sum is lost in it."""


@overload
def summary(model: keras.Model, *, inputs: Any = None) -> Summary: ...
@overload
def summary(model: keras.Model, after: keras.Model, *, inputs: Any = None) -> Comparison: ...
def summary(
    model: keras.Model, after: keras.Model | None = None, *, inputs: Any = None
) -> Summary | Comparison:
    """Return what a model costs, layer by layer, or a comparison of two models.

    Parameters, zeros and bytes are read from the weights as they are now; the state of optimizers,
    metrics and random generators does not count. Multiply-accumulates are counted in the model's
    graph by `tfcompress.cost.macs.count_macs`; no layer is run. A quantization-aware model is shown
    with the layers and numbers of the model that it was made from: its ranges are no weights.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")])
    >>> total = summary(model).total
    >>> total.parameters, total.zeros, total.macs, total.bytes
    (36, 4, 32, 144)

    >>> wide = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, name="head")])
    >>> summary(wide, model).total.left
    {'parameters': 0.25, 'macs': 0.25, 'bytes': 0.25}

    Args:
        model: A built model.
        after: A second model to compare the first with. Defaults to None.
        inputs: Arguments to call the model with, for sizes that the model itself does not know:
            arrays or `keras.KerasTensor`s with the batch first; a tuple is several arguments.
            Defaults to None, the model's own inputs.

    Returns:
        A `Summary`, or a `Comparison` if there are two models. A layer of unknown sizes has
        `macs=None`.

    Raises:
        TypeError: `model` or `after` is no Keras model.
        ValueError: A model is not built, or cannot be traced.
    """
    if inputs is not None:
        _check_inputs(inputs)
    if after is None:
        return _summarize(model, inputs)
    if not isinstance(after, keras.Model):
        raise TypeError(
            "The second model must be a keras.Model. (What a model is called with goes by name: "
            f"summary(model, inputs=...).) Received: after={after!r}"
        )
    return Comparison(_summarize(model, inputs), _summarize(after, inputs))


def _check_inputs(inputs: Any) -> None:
    flat = keras.tree.flatten(inputs)
    if not flat or not all(hasattr(part, "shape") and hasattr(part, "dtype") for part in flat):
        wanted = "arrays or KerasTensors with the batch first, or a tuple of several arguments"
        refuse("inputs", wanted, inputs, TypeError)


def _summarize(model: keras.Model, inputs: Any) -> Summary:
    check_built(model)
    macs = count_macs(model, inputs)
    counted: set[int] = set()
    layers = []
    for path, lineage in walk(model):
        layer = lineage[-1] if lineage else model
        if isinstance(layer, TensorQuantizer | LayerQuantizer) or is_step_input(layer):
            continue
        wrapper = next((part for part in lineage if isinstance(part, LayerQuantizer)), None)
        if wrapper is not None:
            path = "/".join(part.name for part in lineage if part is not wrapper)
        own = {id(weight): weight for weight in own_weights(layer) if id(weight) not in counted}
        counted.update(own)
        arrays = [keras.ops.convert_to_numpy(weight) for weight in own.values()]
        counts = [macs.get(layer, 0)]
        if wrapper is not None and layer is wrapper.layer:
            counts.append(macs.get(wrapper, 0))  # computed by the wrapper instead of the layer
        near_zeros, dead_channels = _lost(layer, own.values())
        layers.append(
            LayerSummary(
                path,
                type(layer).__name__,
                parameters=sum(array.size for array in arrays),
                zeros=sum(array.size - int(np.count_nonzero(array)) for array in arrays),
                macs=add_macs(counts),
                bytes=sum(array.nbytes for array in arrays),
                bits=_bits(layer, own.values(), wrapper),
                near_zeros=near_zeros,
                dead_channels=dead_channels,
            )
        )
    return Summary(model.name, tuple(layers))


def _bits(
    layer: keras.layers.Layer, own: Iterable[keras.Variable], wrapper: LayerQuantizer | None
) -> tuple[int, ...]:
    int8 = wrapper is not None and wrapper.why_float() is None
    found = [weight for weight in own if is_kernel(layer, weight)]
    widths = {8 if int8 else 8 * np.dtype(weight.dtype).itemsize for weight in found}
    return tuple(sorted(widths))


def _lost(layer: keras.layers.Layer, own: Iterable[keras.Variable]) -> tuple[int, int]:
    """Return how many weights of kernels are near zero, and how many outputs have no others."""
    variables = {id(weight) for weight in own}
    near_zeros = dead_channels = 0
    for kernel in kernels_of(layer) if variables else ():
        if id(kernel.variable) not in variables:
            continue
        weights = np.abs(kernel.numpy())
        lost = weights <= ROUNDING * weights.max(initial=0)
        near_zeros += int(np.count_nonzero(lost & (weights > 0)))
        inside = tuple(axis for axis in range(weights.ndim) if axis not in kernel.output_axes)
        dead_channels += int(np.count_nonzero(lost.all(axis=inside)))
    return near_zeros, dead_channels
