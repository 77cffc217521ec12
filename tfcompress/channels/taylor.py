"""Score channels by how much the loss would change without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcompress.edge.arguments import check_batch_size
from tfcompress.model.batches import batches, check_data
from tfcompress.model.checks import check_loss
from tfcompress.model.graph import functional

from .groups import ChannelGroup, GroupMember
from .registry import ChannelImportance, Scores, register
from .sums import as_array, member_sums

__all__ = ["taylor"]


@register("taylor", needs="loss")
def taylor(x: Any, y: Any = None, loss: Any = None, batch_size: int = 32) -> ChannelImportance:
    """Return an importance that scores each unit by the change of the loss without it.

    The change is estimated to first order. For each batch, weight times gradient is summed over the
    trainable weights that make the unit (kernels, biases and factors of normalization) and squared.
    The score is the mean over the batches.

    >>> from tfcompress import channel_groups
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    >>> importance = taylor(np.ones((8, 3)), np.ones((8, 1)), loss="mse")
    >>> [score.shape for score in importance(model, channel_groups(model).prunable)]
    [(2,)]

    Args:
        x: Inputs: an array, or a list or dictionary of arrays, with the samples first. Or a
            `tf.data.Dataset` or `keras.utils.PyDataset` that yields batches.
        y: Targets: an array, or a list or dictionary of arrays, with the samples first. Left out
            where `x` is a data set, which holds the targets, and may hold weights of the samples.
            Defaults to None.
        loss: A Keras loss or its name. Defaults to the loss that the model was compiled with; a
            pruned model is not compiled.
        batch_size: Samples in a batch, where `x` is arrays. Defaults to 32.

    Returns:
        A `ChannelImportance`.

    Raises:
        TypeError: `x` or `y` is no data, or an argument has another wrong type.
        ValueError: `batch_size` is below 1, or there is no such loss. When the importance is
            called: the model is not compiled and there is no `loss`; or the data are empty,
            endless, do not fit the model, or have no targets.

    Reference:
        Molchanov et al., "Importance Estimation for Neural Network Pruning",
        https://arxiv.org/abs/1906.10771, equation 8.
    """
    check_batch_size(batch_size)
    check_data("x", x)
    if y is not None:
        check_data("y", y)
    if loss is not None:
        check_loss("loss", loss)

    def score(model: keras.Model, groups: Sequence[ChannelGroup]) -> Scores:
        if loss is None and not getattr(model, "compiled", False):
            raise ValueError(
                f"The model {model.name!r} is not compiled: give `taylor` the loss, as in "
                'taylor(x, y, loss="sparse_categorical_crossentropy").'
            )
        function = keras.losses.get(loss)
        makers = {
            id(member.variable): member.variable
            for group in groups
            for member in group.members
            if _makes(member)
        }
        totals = [np.zeros(group.size) for group in groups]
        count = 0
        for inputs, targets, weights in batches(model, x, y, batch_size):
            if targets is None:
                raise ValueError(
                    "`taylor` needs targets: taylor(x, y), or a tf.data.Dataset of (x, y)."
                )
            with tf.GradientTape() as tape:
                value = _loss(model, function, inputs, targets, weights)
            sources = [variable.value for variable in makers.values()]
            gradients = tape.gradient(value, sources, unconnected_gradients="zero")
            products = {
                key: as_array(variable) * np.asarray(tf.convert_to_tensor(gradient))
                for (key, variable), gradient in zip(makers.items(), gradients, strict=True)
            }
            for group, total in zip(groups, totals, strict=True):
                change = np.zeros(group.size)
                for member in group.members:
                    if _makes(member):
                        change += member_sums(group, member, products[id(member.variable)])
                total += np.square(change)
            count += 1
        return [total / count for total in totals]

    return score


def _loss(model: keras.Model, function: Any, inputs: list[Any], targets: Any, weights: Any) -> Any:
    x = keras.tree.pack_sequence_as(functional(model).input, inputs)
    outputs = model(x, training=False)
    if function is None:
        return model.compute_loss(
            x=x, y=targets, y_pred=outputs, sample_weight=weights, training=False
        )
    if isinstance(function, keras.losses.Loss):
        return function(targets, outputs, sample_weight=weights)
    values = function(targets, outputs)
    return tf.reduce_mean(values if weights is None else values * tf.cast(weights, values.dtype))


def _makes(member: GroupMember) -> bool:
    """Return whether a trainable weight takes part in making the units."""
    return member.role != "input" and bool(member.variable.trainable)
