"""Rules for convolutions and for layers that move a window: where channels come from."""

from __future__ import annotations

import numpy as np

from .call import Call, check_activation
from .units import Ids, Labels, fixed

__all__ = ["conv", "conv_transpose", "depthwise", "global_pool", "separable", "window"]


def conv(call: Call) -> Labels:
    """Follow channels through a convolution, whose filters make the output channels."""
    layer = call.operation
    x, per_group = call.channels, int(layer.kernel.shape[-2])
    if layer.groups == 1:
        out = call.new_units(layer.filters, "channels")
        call.member(layer.kernel, -2, "input", x)
    elif per_group == 1:
        out = np.repeat(x, layer.filters // layer.groups)
        call.size("groups", x)
    else:
        # The same positions are cut from every group, so that the groups keep one size.
        out = call.new_units(layer.filters, "channels")
        for ids in (x, out):
            first, *others = np.split(ids, layer.groups)
            for other in others:
                call.coupling.unite(first, other)
        call.member(layer.kernel, -2, "input", x[:per_group])
    call.member(layer.kernel, -1, "output", out)
    return _filters(call, out)


def conv_transpose(call: Call) -> Labels:
    """Follow channels through a transposed convolution, whose kernel has outputs before inputs."""
    layer = call.operation
    out = call.new_units(layer.filters, "channels")
    call.member(layer.kernel, -1, "input", call.channels)
    call.member(layer.kernel, -2, "output", out)
    return _filters(call, out)


def depthwise(call: Call) -> Labels:
    """Follow channels through a depthwise convolution, which mixes none of them."""
    layer = call.operation
    out = np.repeat(call.channels, layer.depth_multiplier)
    call.member(layer.kernel, -2, "output", call.channels)
    call.member(layer.bias, 0, "parameter", out)
    check_activation(call, layer.activation, out)
    return _spatial(call, out)


def separable(call: Call) -> Labels:
    """Follow channels through a depthwise convolution and the pointwise one after it."""
    layer = call.operation
    out = call.new_units(layer.filters, "channels")
    call.member(layer.depthwise_kernel, -2, "output", call.channels)
    between = np.repeat(call.channels, layer.depth_multiplier)
    call.member(layer.pointwise_kernel, -2, "input", between)
    call.member(layer.pointwise_kernel, -1, "output", out)
    return _filters(call, out)


def window(call: Call) -> Labels:
    """Follow channels through pooling, padding, cropping or resizing, which move positions."""
    return _spatial(call, call.channels)


def global_pool(call: Call) -> Labels:
    """Follow channels through global pooling, which removes the positions."""
    call.keep(call.x[1:-1], "it is pooled over")
    return (*fixed(call.shapes[0][:-1]), call.channels)


def _filters(call: Call, out: Ids) -> Labels:
    """Note what goes with the filters of a layer, and return the labels of its output."""
    call.member(call.operation.bias, 0, "parameter", out)
    call.size("filters", out)
    check_activation(call, call.operation.activation, out)
    return _spatial(call, out)


def _spatial(call: Call, out: Ids) -> Labels:
    """Return the labels of a layer that moves a window along all axes but batch and channels."""
    call.keep(call.x[1:-1], "a window moves along it")
    return (*fixed(call.shapes[0][:-1]), out)
