"""Rules for layers that scale or normalize channels: which of their weights run over channels."""

from __future__ import annotations

import numpy as np
from keras import layers

from .call import Call
from .units import Labels

__all__ = [
    "batch_normalization",
    "group_normalization",
    "layer_normalization",
    "layer_scale",
    "prelu",
    "rescaling",
]


def batch_normalization(call: Call) -> Labels:
    """Follow channels through batch normalization, which has four parameters for each."""
    layer = call.operation
    ids = call.x[layer.axis]
    assert ids is not None, call.path
    for variable in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance):
        call.member(variable, 0, "parameter", ids)
    return call.x


def layer_normalization(call: Call) -> Labels:
    """Follow channels through layer or RMS normalization, which makes each depend on all."""
    layer = call.operation
    over = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    names = ("gamma", "beta") if isinstance(layer, layers.LayerNormalization) else ("scale",)
    _normalize(call, over)
    for axis, where in enumerate(over):
        ids = call.x[where]
        if ids is not None:
            for name in names:
                call.member(getattr(layer, name), axis, "parameter", ids)
    return call.x


def group_normalization(call: Call) -> Labels:
    """Follow channels through group normalization; every group loses the same positions."""
    layer = call.operation
    ids = call.x[layer.axis]
    assert ids is not None, call.path
    if layer.groups in (-1, len(ids)):
        if layer.groups > 0:
            call.size("groups", ids)
    else:
        first, *others = np.split(ids, layer.groups)
        for other in others:
            call.coupling.unite(first, other)
        _normalize(call, [layer.axis])
    call.member(layer.gamma, 0, "parameter", ids)
    call.member(layer.beta, 0, "parameter", ids)
    return call.x


def prelu(call: Call) -> Labels:
    """Follow channels through a PReLU, which has a slope for each."""
    alpha = call.operation.alpha
    for axis, ids in enumerate(call.x[1:]):
        if ids is not None and alpha.shape[axis] == len(ids):
            call.member(alpha, axis, "parameter", ids)
    return call.x


def layer_scale(call: Call) -> Labels:
    """Follow channels through the `LayerScale` of ConvNeXt, which has a factor for each."""
    call.member(call.operation.gamma, 0, "parameter", call.channels)
    call.size("projection_dim", call.channels)
    return call.x


def rescaling(call: Call) -> Labels:
    """Follow channels through a rescaling; constants for each channel cannot be cut."""
    if np.ndim(call.operation.scale) or np.ndim(call.operation.offset):
        call.keep(call.x, "it is rescaled by constants")
    return call.x


def _normalize(call: Call, over: list[int]) -> None:
    for axis in over:
        ids = call.x[axis]
        if ids is not None:
            call.coupling.normalized.update(dict.fromkeys(ids.tolist(), call.path))
