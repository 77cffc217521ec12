"""Calibration samples that are unlike what the model was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfcompress.model.graph import Node, is_graph, nodes
from tfcompress.model.kernels import kernels_of
from tfcompress.model.samples import Array, InputSpec

from .integer_samples import unscaled_integers

_FAR = 5.0
"""Standard deviations between the mean of the samples and the mean that a layer expects."""

_NARROW = 0.05
"""Spread of the samples, as a share of the spread that a layer expects."""


def integers_for_floats(
    model: keras.Model, inputs: Sequence[InputSpec], data: Any, arrays: Mapping[str, Array]
) -> list[str]:
    """Say which float inputs get integers, although no layer scales them.

    Pixels from 0 to 255 that a model of 0 to 1 gets make all ranges 255 times too wide.

    Args:
        model: The model.
        inputs: Its inputs.
        data: The samples as they were given.
        arrays: The samples by input name, in the inputs' dtypes.

    Returns:
        A sentence for each such input.
    """
    return unscaled_integers(dict(_first_layers(model)), inputs, data, arrays)


def unlike_normalization(
    model: keras.Model, inputs: Sequence[InputSpec], arrays: Mapping[str, Array]
) -> list[str]:
    """Say which inputs get samples that the `Normalization` layer behind them does not expect.

    Args:
        model: The model.
        inputs: Its inputs.
        arrays: The samples by input name.

    Returns:
        A sentence for each such input.
    """
    said = []
    for name, node in _readers(model):
        layer, array = node.operation, arrays.get(name)
        if not isinstance(layer, keras.layers.Normalization) or array is None or array.size < 16:
            continue
        if getattr(layer, "invert", False) or layer.mean is None:
            continue
        mean = keras.ops.convert_to_numpy(layer.mean).astype(np.float64)
        spread = np.sqrt(keras.ops.convert_to_numpy(layer.variance).astype(np.float64))
        if not (spread > 0).any():
            continue
        z = (array - mean) / np.where(spread > 0, spread, np.inf)
        axis = tuple(range(z.ndim - 1))
        if np.abs(z.mean(axis)).max() < _FAR and np.median(z.std(axis)) > _NARROW:
            continue
        low, high = (mean - 3 * spread).min(), (mean + 3 * spread).max()
        said.append(
            f"The samples for input '{name}' have a range from {array.min():g} to {array.max():g}, "
            f"and layer '{layer.name}' expects about {low:g} to {high:g}, by the mean and variance "
            "that it learned. Pass samples as the model gets them, not normalized ones."
        )
    return said


def _readers(model: keras.Model) -> Iterator[tuple[str, Node]]:
    """Yield the calls that read an input of a functional model, with its name."""
    if not is_graph(model):
        return
    for node in nodes(model):
        if node.call.is_input:
            yield from ((node.name, reader) for reader in node.consumers if reader is not None)


def _first_layers(model: keras.Model) -> Iterator[tuple[str, str]]:
    """Yield the inputs that a layer with weights reads as they are, with its name."""
    for name, node in _readers(model):
        for reader in _past_moves(node):
            if isinstance(reader, keras.layers.Layer) and kernels_of(reader):
                yield name, reader.name


def _past_moves(node: Node) -> Iterator[Any]:
    """Yield the first operations that do more than place or drop values."""
    placing = (
        keras.layers.Reshape,
        keras.layers.Flatten,
        keras.layers.Permute,
        keras.layers.Dropout,
        keras.layers.Identity,
        keras.layers.ZeroPadding1D,
        keras.layers.ZeroPadding2D,
    )
    if isinstance(node.operation, placing):
        for reader in node.consumers:
            if reader is not None:
                yield from _past_moves(reader)
    elif is_graph(node.operation):
        for _, inner in _readers(node.operation):
            yield from _past_moves(inner)
    else:
        yield node.operation
