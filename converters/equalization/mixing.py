"""Rules for layers whose kernels mix channels: they read one scale, and make another."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from tfcompress.model.dependency.call import Call, keep_all
from tfcompress.model.dependency.sequences import query_key_value
from tfcompress.model.dependency.units import FIXED, Ids, Labels, fixed
from tfcompress.model.keras_private import attention_projections
from tfcompress.model.layers import rule_class

from .homogeneous import activated
from .scaling import Part, scaling_of

__all__ = [
    "attention",
    "bidirectional",
    "conv",
    "conv_transpose",
    "dense",
    "depthwise",
    "einsum_dense",
    "embedding",
    "rnn",
    "separable",
]


def dense(call: Call) -> Labels:
    """Follow scales through a dense layer."""
    kernel = call.operation.kernel
    _reads(call, kernel, call.channels[:, None], (1,))
    return _made(call, call.operation.units, [(kernel, (1, -1))])


def conv(call: Call) -> Labels:
    """Follow scales through a convolution, in one group or several."""
    layer = call.operation
    per_group, filters = int(layer.kernel.shape[-2]), int(layer.filters)
    groups = np.split(call.channels, layer.groups)
    ids = np.stack([groups[i * layer.groups // filters] for i in range(filters)], -1)
    # A kernel with a channel of its own for each output has a scale for each channel that it reads.
    outputs = () if per_group == 1 and layer.groups > 1 else (-1,)
    _reads(call, layer.kernel, ids, outputs)
    return _made(call, filters, [(layer.kernel, (1, -1))])


def conv_transpose(call: Call) -> Labels:
    """Follow scales through a transposed convolution, whose kernel has outputs before inputs."""
    layer = call.operation
    _reads(call, layer.kernel, call.channels, (-2,))
    return _made(call, layer.filters, [(layer.kernel, (-1, 1))])


def depthwise(call: Call) -> Labels:
    """Follow scales through a depthwise convolution."""
    layer = call.operation
    channels, multiplier = layer.kernel.shape[-2:]
    _reads(call, layer.kernel, call.channels[:, None], ())
    return _made(call, channels * multiplier, [(layer.kernel, (channels, multiplier))])


def separable(call: Call) -> Labels:
    """Follow scales through a depthwise convolution and the pointwise one after it."""
    layer, scaling = call.operation, scaling_of(call)
    kernel, pointwise = layer.depthwise_kernel, layer.pointwise_kernel
    channels, multiplier = kernel.shape[-2:]
    _reads(call, kernel, call.channels[:, None], ())
    between = call.new_units(channels * multiplier, "channels between")
    scaling.part(Part(layer, kernel, between.reshape(channels, multiplier), False))
    scaling.part(Part(layer, pointwise, between[:, None], True, (-1,)))
    scaling.read(call.path, call.x, between, lambda x: _after_depthwise(layer, x))
    return _made(call, layer.filters, [(pointwise, (1, -1))])


def _after_depthwise(layer: Any, x: Any) -> Any:
    """Return what the pointwise kernel of a separable convolution reads."""
    rank = len(layer.kernel_size)
    image = keras.ops.reshape(x, (-1, *x.shape[-rank - 1 :]))  # `TimeDistributed` adds an axis
    if layer.padding == "causal":
        left = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
        image = keras.ops.pad(image, ((0, 0), (left, 0), (0, 0)))
    return keras.ops.depthwise_conv(
        image,
        keras.ops.cast(layer.depthwise_kernel, image.dtype),
        strides=layer.strides,
        padding="same" if layer.padding == "same" else "valid",
        dilation_rate=layer.dilation_rate,
    )


def einsum_dense(call: Call) -> Labels:
    """Follow scales through an `EinsumDense`: along the last axes of its input and output."""
    layer = call.operation
    terms, _, result = layer.equation.replace(" ", "").partition("->")
    source, kernel = terms.split(",")
    read, made = source[-1], result[-1]
    call.keep(call.x[:-1], "a kernel reads it along other axes")
    if read in kernel and read not in result:
        outputs = tuple(i for i, letter in enumerate(kernel) if letter in result)
        _reads(call, layer.kernel, _along(call.channels, kernel, read), outputs)
    else:
        call.keep((call.channels,), "the kernel has a part for each of its positions")
    if made not in kernel or made in source:
        return fixed(call.shapes[0])
    size = int(layer.kernel.shape[kernel.index(made)])
    out = call.new_units(size, "units")
    scaling = scaling_of(call)
    scaling.part(Part(layer, layer.kernel, _along(out, kernel, made), False))
    if layer.bias is not None:
        ids = out if made in layer.bias_axes else np.full(1, FIXED)
        if made not in layer.bias_axes:
            call.keep((out,), "its bias is one for all")
        scaling.part(Part(layer, layer.bias, ids, False))
    return activated(call, layer.activation, (*fixed(call.shapes[0][:-1]), out))


def _along(ids: Ids, letters: str, letter: str) -> Ids:
    """Return units along the axis of one letter, to be broadcast to an array with all letters."""
    return ids.reshape([-1 if other == letter else 1 for other in letters])


def embedding(call: Call) -> Labels:
    """Follow the scales of what a table of embeddings gives."""
    layer = call.operation
    call.keep(call.x, "it holds indices")
    return _made(call, layer.output_dim, [(layer.embeddings, (1, -1))])


def rnn(call: Call) -> list[Labels]:
    """Let the kernel of an LSTM, GRU or SimpleRNN read its input; its state has bounds."""
    cell = call.operation.cell
    _reads(call, cell.kernel, call.channels[:, None], (-1,))
    for state in call.tensors()[1:]:
        call.keep(state, "it is the state of a recurrence")
    return [fixed(shape) for shape in call.shapes]


def bidirectional(call: Call) -> list[Labels]:
    """Let both kernels of a bidirectional recurrence read its input."""
    for layer in (call.operation.forward_layer, call.operation.backward_layer):
        if rule_class(layer) not in (layers.LSTM, layers.GRU, layers.SimpleRNN):
            return keep_all(call)
        _reads(call, layer.cell.kernel, call.channels[:, None], (-1,))
    for state in call.tensors()[1:]:
        call.keep(state, "it is the state of a recurrence")
    return [fixed(shape) for shape in call.shapes]


def attention(call: Call) -> Labels | list[Labels]:
    """Follow scales into the projections of an attention layer, and out of the last one."""
    layer, scaling = call.operation, scaling_of(call)
    projections = attention_projections(layer)
    if layer.get_config()["use_gate"] or len(projections.output.kernel.shape) != 3:
        return keep_all(call)
    for dense, x in zip(projections[:3], query_key_value(call), strict=True):
        ids = x[-1]
        assert ids is not None, call.path
        call.keep(x[1:-1], "attention runs along it")
        scaling.part(Part(layer, dense.kernel, ids[:, None, None], True, (1, 2)))
        scaling.read(call.path, x, ids)
    last = projections.output
    out = call.new_units(int(last.kernel.shape[-1]), "width")
    scaling.part(Part(layer, last.kernel, out, False))
    if last.bias is not None:
        scaling.part(Part(layer, last.bias, out, False))
    rest = [fixed(shape) for shape in call.shapes[1:]]
    return [(*fixed(call.shapes[0][:-1]), out), *rest]


def _reads(call: Call, kernel: Any, ids: Ids, outputs: tuple[int, ...]) -> None:
    call.keep(call.x[1:-1], "a bias is added along it")
    scaling = scaling_of(call)
    scaling.part(Part(call.operation, kernel, ids, True, outputs))
    scaling.read(call.path, call.x, call.channels)


def _made(call: Call, size: int, kernels: list[tuple[Any, tuple[int, ...]]]) -> Labels:
    """Return the labels of an output of new scales, which kernels and the bias make."""
    layer, scaling = call.operation, scaling_of(call)
    out = call.new_units(int(size), "channels")
    for kernel, shape in kernels:
        scaling.part(Part(layer, kernel, out.reshape(shape), False))
    if getattr(layer, "bias", None) is not None:
        scaling.part(Part(layer, layer.bias, out, False))
    labels = (*fixed(call.shapes[0][:-1]), out)
    return activated(call, getattr(layer, "activation", None), labels)
