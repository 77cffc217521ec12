"""Score channels by their activations: what kernels read, averaged over data, by unit.

What depthwise kernels read does not count, since they only hand each channel on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfcompress.edge.arguments import check_batch_size
from tfcompress.model.batches import batches, check_data
from tfcompress.model.tensor_values import tensor_values

from .groups import ChannelGroup
from .registry import ChannelImportance, Scores, register
from .sums import kernel_norm, per_unit

__all__ = ["activation_mean", "activation_zeros"]


@register("activation_mean", needs="data")
def activation_mean(x: Any, batch_size: int = 32) -> ChannelImportance:
    """Return an importance that scores each unit by the mean of its absolute activations.

    Activations are taken where kernels read them. The inputs of depthwise kernels do not count,
    since these only hand each channel on. A group that appears in no tensor between layers (heads
    of attention) is scored by `l2_norm`.

    >>> from tfcompress import channel_groups
    >>> dense = keras.layers.Dense(2, kernel_initializer=keras.initializers.Constant([[1, -2]]))
    >>> model = keras.Sequential([keras.Input((1,)), dense, keras.layers.Dense(1)])
    >>> activation_mean(np.ones((4, 1)))(model, channel_groups(model).prunable)
    [array([1., 2.])]

    Args:
        x: Inputs: an array, or a list or dictionary of arrays, with the samples first. Or a
            `tf.data.Dataset` or `keras.utils.PyDataset` that yields batches.
        batch_size: Samples in a batch, where `x` is arrays. Defaults to 32.

    Returns:
        A `ChannelImportance`.
    """
    return _activations(x, batch_size, np.abs)


@register("activation_zeros", needs="data")
def activation_zeros(x: Any, batch_size: int = 32) -> ChannelImportance:
    """Return an importance that scores each unit by its share of activations that are not zero.

    This is one minus the average percentage of zeros (APoZ). Without a ReLU, hardly any activation
    is zero, and all units score 1. Activations are taken where kernels read them. A group that
    appears in no tensor between layers (heads of attention) is scored by `l2_norm`.

    >>> from tfcompress import channel_groups
    >>> dense = keras.layers.Dense(
    ...     2, "relu", kernel_initializer=keras.initializers.Constant([[1, -2]]))
    >>> model = keras.Sequential([keras.Input((1,)), dense, keras.layers.Dense(1)])
    >>> activation_zeros(np.ones((4, 1)))(model, channel_groups(model).prunable)
    [array([1., 0.])]

    Args:
        x: Inputs: an array, or a list or dictionary of arrays, with the samples first. Or a
            `tf.data.Dataset` or `keras.utils.PyDataset` that yields batches.
        batch_size: Samples in a batch, where `x` is arrays. Defaults to 32.

    Returns:
        A `ChannelImportance`.

    Reference:
        Hu et al., "Network Trimming", https://arxiv.org/abs/1607.03250.
    """
    return _activations(x, batch_size, lambda array: (array != 0).astype(np.float64))


def _activations(x: Any, batch_size: int, measure: Callable[[Any], Any]) -> ChannelImportance:
    check_batch_size(batch_size)
    check_data("x", x)

    def score(model: keras.Model, groups: Sequence[ChannelGroup]) -> Scores:
        inputs = (inputs for inputs, _, _ in batches(model, x, None, batch_size))
        found = _averages(model, groups, inputs, measure)
        return [
            kernel_norm(group, np.square) if mean is None else mean
            for group, mean in zip(groups, found, strict=True)
        ]

    return score


def _averages(
    model: keras.Model,
    groups: Sequence[ChannelGroup],
    batches: Iterable[list[Any]],
    measure: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
) -> list[npt.NDArray[np.float64] | None]:
    """Return the mean of a measure of each unit's activations, where kernels read them.

    Args:
        model: The model.
        groups: Groups of the model.
        batches: Batches of inputs, each a list in the order of the model's inputs.
        measure: Function of an array of activations that returns an array of the same shape.

    Returns:
        For each group, an array with a value for each unit; None for a group that appears in no
        tensor between layers.
    """
    wanted = {key for group in groups for key, _ in group.tensors}
    sums: dict[int, Any] = dict.fromkeys(wanted, 0.0)
    counts: dict[int, int] = dict.fromkeys(wanted, 0)
    for batch in batches:
        for key, tensor in tensor_values(model, batch):
            if key in wanted:
                array = measure(np.asarray(keras.ops.convert_to_numpy(tensor), np.float64))
                sums[key] += array.reshape(-1, array.shape[-1]).sum(0)
                counts[key] += array.size // array.shape[-1]

    def mean(group: ChannelGroup) -> npt.NDArray[np.float64]:
        total = sum(per_unit(group, units, sums[key]) for key, units in group.tensors)
        number = sum(
            per_unit(group, units, np.full(len(units), counts[key])) for key, units in group.tensors
        )
        return np.asarray(total / np.maximum(number, 1))

    return [mean(group) if group.tensors else None for group in groups]
