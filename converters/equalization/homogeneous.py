"""Rules for what hands scales on: layers and operations f with f(s x) = s f(x) for each s > 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers

from tfcompress.model.dependency import axes
from tfcompress.model.dependency.call import Call, Rule
from tfcompress.model.dependency.layers import LAYERS
from tfcompress.model.dependency.operations import OPERATIONS
from tfcompress.model.dependency.units import FIXED, Ids, Labelled, Labels, fixed

__all__ = ["LAYER_RULES", "OPERATION_RULES", "activated", "refused"]

_LINEAR = ("linear", "relu", "leaky_relu")


def activated(call: Call, activation: Any, labels: Labels) -> Labels:
    """Return the labels after an activation: nothing can be scaled if it is not homogeneous."""
    if activation is None or _is_homogeneous(activation):
        return labels
    name = getattr(activation, "__name__", type(activation).__name__)
    return refused(call, name, labels)


def _is_homogeneous(activation: Any) -> bool:
    if isinstance(activation, layers.Layer):
        kept = type(activation) in (layers.ReLU, layers.LeakyReLU)
        return kept and _clips_at_zero(activation)
    name = getattr(activation, "__name__", "")
    return name in _LINEAR and getattr(keras.activations, name, None) is activation


def refused(call: Call, name: str, labels: Labels) -> Labels:
    """Keep the scales of a tensor, because an operation of this name does not hand scales on."""
    call.keep(labels, f"{name} does not scale with what it reads")
    return fixed(call.shapes[0])


def _clips_at_zero(layer: Any) -> bool:
    return getattr(layer, "max_value", None) is None and not getattr(layer, "threshold", 0)


def _relu(call: Call) -> Labels:
    layer = call.operation
    if _clips_at_zero(layer):
        return call.x
    clipped = layer.max_value is not None
    return refused(call, f"a ReLU up to {layer.max_value:g}" if clipped else "a threshold", call.x)


def _activation(call: Call) -> Labels:
    return activated(call, call.operation.activation, call.x)


def _same(call: Call) -> Labels:
    return call.x


def _rescaling(call: Call) -> Labels:
    return refused(call, "an offset", call.x) if np.any(call.operation.offset) else call.x


def _merge(call: Call) -> Labels:
    return _sum(call, list(call.first))


def _product(call: Call) -> Labels:
    return _multiplied(call, list(call.first))


def _not_homogeneous(call: Call) -> list[Labels]:
    name = type(call.operation).__name__
    for labels in call.tensors():
        call.keep(labels, f"{name} does not scale with what it reads")
    return [fixed(shape) for shape in call.shapes]


def _zero_pad(call: Call) -> Labels | list[Labels]:
    value = call.args[1] if len(call.args) > 1 else call.kwargs.get("constant_values")
    if value not in (None, 0):
        return _not_homogeneous(call)
    return OPERATIONS["Pad"](call)


def _operands(call: Call) -> tuple[list[Labelled], list[Any]]:
    """Return the tensors of an operation, and its other numbers."""
    values = [*call.args, *call.kwargs.values()]
    tensors = [value for value in values if isinstance(value, Labelled)]
    return tensors, [v for v in values if v is not None and not isinstance(v, Labelled)]


def _add(call: Call) -> Labels | list[Labels]:
    tensors, numbers = _operands(call)
    if any(np.any(np.asarray(number) != 0) for number in numbers):
        return _not_homogeneous(call)
    return _sum(call, tensors)


def _multiply(call: Call) -> Labels | list[Labels]:
    tensors, numbers = _operands(call)
    if any(np.ndim(number) for number in numbers):
        return _not_homogeneous(call)
    return _multiplied(call, tensors)


def _divide(call: Call) -> Labels | list[Labels]:
    tensors, numbers = _operands(call)
    over = call.args[1] if len(call.args) > 1 else next(iter(call.kwargs.values()))
    if isinstance(over, Labelled) and (len(tensors) < 2 or not _is_fixed(over)):
        return _not_homogeneous(call)
    return _not_homogeneous(call) if any(map(np.ndim, numbers)) else _multiplied(call, tensors)


def _sum(call: Call, tensors: list[Labelled]) -> Labels:
    """Return the labels of a sum: what is added has one scale, also where an axis is repeated."""
    rank = len(call.shapes[0])
    ranked = [_filled(labels, rank) for labels in tensors]
    for along in zip(*ranked, strict=True):
        if len({len(ids) for ids in along if ids is not None}) > 1:
            call.keep(along, "one value is added to several channels")
    return axes.broadcast(call.coupling, ranked)


def _filled(labels: Labels, rank: int) -> Labels:
    return (*(np.full(1, FIXED),) * (rank - len(labels)), *labels)


def _multiplied(call: Call, tensors: list[Labelled]) -> Labels:
    """Return the labels of a product, which has the scale of its only factor that has one."""
    scaled = [labels for labels in tensors if not _is_fixed(labels)]
    shape = call.shapes[0]
    if not scaled:
        return fixed(shape)
    if len(scaled) > 1:
        for labels in scaled:
            call.keep(labels, "it is multiplied with another tensor of the model")
        return fixed(shape)
    filled = _filled(scaled[0], len(shape))
    return tuple(
        None if size is None or ids is None else _repeated(ids, size)
        for ids, size in zip(filled, shape, strict=True)
    )


def _repeated(ids: Ids, size: int) -> Ids:
    return ids if len(ids) == size else np.repeat(ids, size)


def _is_fixed(labels: Labels) -> bool:
    return all(ids is None or bool((ids == FIXED).all()) for ids in labels)


_POOLS = (
    *(layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D),
    *(layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D),
    *(layers.Cropping1D, layers.Cropping2D, layers.Cropping3D),
    *(layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D),
    *(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D),
    *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D),
    *(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
)
_SHARED = (
    *(layers.Concatenate, layers.Flatten, layers.Reshape, layers.Permute, layers.RepeatVector),
    *(layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
    *(layers.Identity, *_POOLS),
)

LAYER_RULES: Mapping[type, Rule] = {
    # What becomes of the positions of an axis is one question, whether they are cut or scaled.
    **{kind: LAYERS[kind] for kind in _SHARED},
    layers.ReLU: _relu,
    layers.LeakyReLU: _same,
    layers.PReLU: _same,
    layers.Activation: _activation,
    layers.Rescaling: _rescaling,
    **dict.fromkeys((layers.Add, layers.Average, layers.Subtract), _merge),
    **dict.fromkeys((layers.Maximum, layers.Minimum), _merge),
    layers.Multiply: _product,
    **dict.fromkeys((layers.ELU, layers.Softmax, layers.UnitNormalization), _not_homogeneous),
}
"""Rules for layers without kernels. All inputs and outputs of another layer are kept."""

_SAME_PLACES = ("Concatenate", "ExpandDims", "GetItem", "Reshape", "Split", "Squeeze", "Stack")
_CLIPPED = ("Relu6", "Clip", "Sigmoid", "HardSigmoid", "Tanh", "Silu", "HardSilu", "Gelu", "Elu")

OPERATION_RULES: Mapping[str, Rule] = {
    **{name: OPERATIONS[name] for name in (*_SAME_PLACES, "Transpose")},
    **{name: OPERATIONS[name] for name in ("Max", "Mean", "Min", "Sum")},
    **dict.fromkeys(("Abs", "Absolute", "Identity", "LeakyRelu", "Negative", "Relu"), _same),
    **dict.fromkeys(("Add", "Maximum", "Minimum", "Subtract"), _add),
    **dict.fromkeys(("Divide", "TrueDivide"), _divide),
    "Multiply": _multiply,
    "Pad": _zero_pad,
    **dict.fromkeys((*_CLIPPED, "Exp", "Softmax", "Softplus", "Square"), _not_homogeneous),
}
"""Rules for operations of `keras.ops`, by class name."""
