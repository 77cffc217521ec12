"""Score the channels of a model; the lowest are cut first.

To add a score, register a function with what it needs: `"weights"` (the default), `"data"` or
`"loss"`.

    @importance.register("most_zeros")
    def most_zeros(model, groups):
        ...  # for each group, an array with a score for each unit

`prune_channels(importance="most_zeros")` then finds it, and so does the command line:
`tfcompress prune-channels --import my_module --importance most_zeros`. A score that needs data is a
function of the data that returns such a function.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from tfcompress.edge.arguments import check_integer

from .activations import activation_mean, activation_zeros
from .groups import ChannelGroup
from .registry import IMPORTANCES, ChannelImportance, Scores, get, register
from .sums import as_array, kernel_norm, member_sums
from .taylor import taylor

__all__ = [
    "IMPORTANCES",
    "ChannelImportance",
    "activation_mean",
    "activation_zeros",
    "bn_scale",
    "get",
    "l1_norm",
    "l2_norm",
    "random",
    "register",
    "taylor",
]


@register("l1_norm")
def l1_norm(model: keras.Model, groups: Sequence[ChannelGroup]) -> Scores:
    """Score each unit by the absolute values of all weights that go with it.

    A unit's weights are its weights in every kernel of its group: in kernels that make it and in
    kernels that read it. The score is the mean over the kernels of the sum over the unit's weights.

    >>> from tfcompress import channel_groups
    >>> dense = keras.layers.Dense(2, use_bias=False, kernel_initializer="ones")
    >>> model = keras.Sequential([keras.Input((3,)), dense, keras.layers.Dense(1)])
    >>> _ = model.layers[1].kernel.assign([[1.0], [-4.0]])
    >>> l1_norm(model, channel_groups(model).prunable)
    [array([2. , 3.5])]

    Args:
        model: The model.
        groups: Groups of it.

    Returns:
        For each group, an array of float64 with a score for each unit.

    Reference:
        Li et al., "Pruning Filters for Efficient ConvNets", https://arxiv.org/abs/1608.08710; over
        groups as in Fang et al., https://arxiv.org/abs/2301.12900.
    """
    return [kernel_norm(group, np.abs) for group in groups]


@register("l2_norm")
def l2_norm(model: keras.Model, groups: Sequence[ChannelGroup]) -> Scores:
    """Score each unit by the squares of all weights that go with it.

    A unit's weights are its weights in every kernel of its group: in kernels that make it and in
    kernels that read it. The score is the mean over the kernels of the sum over the unit's squared
    weights.

    >>> from tfcompress import channel_groups
    >>> dense = keras.layers.Dense(2, use_bias=False, kernel_initializer="ones")
    >>> model = keras.Sequential([keras.Input((3,)), dense, keras.layers.Dense(1)])
    >>> _ = model.layers[1].kernel.assign([[1.0], [-4.0]])
    >>> l2_norm(model, channel_groups(model).prunable)
    [array([2. , 9.5])]

    Args:
        model: The model.
        groups: Groups of it.

    Returns:
        For each group, an array of float64 with a score for each unit.

    Reference:
        Fang et al., "DepGraph: Towards Any Structural Pruning", https://arxiv.org/abs/2301.12900.
    """
    return [kernel_norm(group, np.square) for group in groups]


@register("bn_scale")
def bn_scale(model: keras.Model, groups: Sequence[ChannelGroup]) -> Scores:
    """Score each unit by the factors that batch normalization scales it with, in absolute value.

    Where a group has no normalization, this is `l2_norm`. Meant for models that were trained with
    an L1 penalty on those factors.

    >>> from tfcompress import channel_groups
    >>> parts = [keras.layers.Dense(2), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    >>> model = keras.Sequential([keras.Input((3,)), *parts])
    >>> _ = parts[1].gamma.assign([-3.0, 1.0])
    >>> bn_scale(model, channel_groups(model).prunable)
    [array([3., 1.])]

    Args:
        model: The model.
        groups: Groups of it.

    Returns:
        For each group, an array of float64 with a score for each unit.

    Reference:
        Liu et al., "Learning Efficient Convolutional Networks through Network Slimming",
        https://arxiv.org/abs/1708.06519.
    """
    scores = []
    for group in groups:
        found = [
            member_sums(group, member, np.abs(as_array(member.variable)))
            for member in group.members
            if isinstance(member.layer, keras.layers.BatchNormalization)
            and member.variable is member.layer.gamma
        ]
        scores.append(np.mean(found, axis=0) if found else kernel_norm(group, np.square))
    return scores


def random(seed: int = 0) -> ChannelImportance:
    """Return an importance that scores at random, which any other importance must beat.

    >>> from tfcompress import channel_groups
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    >>> [score.shape for score in random()(model, channel_groups(model).prunable)]
    [(2,)]

    Args:
        seed: Seed of the generator, which goes on from call to call. Defaults to 0.

    Returns:
        A `ChannelImportance`.
    """
    generator = np.random.default_rng(check_integer("seed", seed, 0))
    return lambda model, groups: [generator.random(group.size) for group in groups]
