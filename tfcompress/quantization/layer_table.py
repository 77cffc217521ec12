"""The table of layers: how int8 files compute each Keras layer and operation."""

from __future__ import annotations

from enum import Enum
from typing import Any

import keras
from keras import activations, layers

from tfcompress.model.kernels import kernels_of
from tfcompress.model.layers import rule_class

from .composites.table import COMPOSITES, composite_of
from .ops import affine, linear
from .ops.activations import fixed_range, has_int8_form, is_fused
from .single_op import trace

__all__ = [
    "Rule",
    "fixed_output",
    "float_reason",
    "has_rule",
    "is_relu",
    "needs_wrapper",
    "rounds_biases",
    "rule_of",
    "why_float",
]


class Rule(Enum):
    """How an operation's output is quantized. The values are what a report says."""

    SAME = "moves int8 values about: the input's range"
    SHARED = "int8, rounded to the input's range"
    JOINED = "int8, all inputs in one range"
    FIXED = "int8, in a fixed range"
    OWN = "int8, in a range of its own"
    ROUNDED = "int8, in a range inside the layer"
    NONE = "no float"


_RULES: dict[type | str, Rule] = {
    **dict.fromkeys(
        (
            layers.ActivityRegularization,
            layers.AdaptiveMaxPooling1D,
            layers.AdaptiveMaxPooling2D,
            layers.AlphaDropout,
            layers.CenterCrop,
            layers.Cropping1D,
            layers.Cropping2D,
            layers.Cropping3D,
            layers.Dropout,
            layers.Flatten,
            layers.GaussianDropout,
            layers.GaussianNoise,
            layers.GlobalMaxPooling1D,
            layers.GlobalMaxPooling2D,
            layers.Identity,
            layers.Masking,
            layers.MaxPooling1D,
            layers.MaxPooling2D,
            layers.Permute,
            layers.RepeatVector,
            layers.Reshape,
            layers.SpatialDropout1D,
            layers.SpatialDropout2D,
            layers.SpatialDropout3D,
            layers.UpSampling1D,
            layers.ZeroPadding1D,
            layers.ZeroPadding2D,
            layers.ZeroPadding3D,
            # These do nothing at inference.
            layers.RandomBrightness,
            layers.RandomContrast,
            layers.RandomCrop,
            layers.RandomFlip,
            layers.RandomRotation,
            layers.RandomTranslation,
            layers.RandomZoom,
            "AdaptiveMaxPool",
            "Amax",
            "Amin",
            "ArraySplit",
            "BroadcastTo",
            "CropImages",
            "DepthToSpace",
            "ExpandDims",
            "GetItem",
            "Identity",
            "Max",
            "MaxPool",
            "Min",
            "Moveaxis",
            "PadImages",
            "Ravel",
            "Repeat",
            "Reshape",
            "Roll",
            "Slice",
            "SpaceToDepth",
            "Squeeze",
            "StopGradient",
            "Swapaxes",
            "Take",
            "TakeAlongAxis",
            "Tile",
            "TopK",
            "Transpose",
            "Unstack",
        ),
        Rule.SAME,
    ),
    **dict.fromkeys(
        (
            layers.AdaptiveAveragePooling1D,
            layers.AdaptiveAveragePooling2D,
            layers.AveragePooling1D,
            layers.AveragePooling2D,
            "AdaptiveAveragePool",
            "AveragePool",
            "Clip",
            "Pad",
            # The converter carries no range through these, so that what reads them would be float.
            "Dsplit",
            "Flip",
            "Fliplr",
            "Flipud",
            "Hsplit",
            "Rot90",
            "Split",
            "Vsplit",
        ),
        Rule.SHARED,
    ),
    **dict.fromkeys(
        (
            layers.Concatenate,
            layers.Maximum,
            layers.Minimum,
            "Append",
            "Concatenate",
            "Dstack",
            "Hstack",
            "Maximum",
            "Minimum",
            "Stack",
            "Vstack",
            "Where",
        ),
        Rule.JOINED,
    ),
}
"""Layers by class and operations by name whose TFLite op has one scale for inputs and output.

The converter gives the range of the output to the inputs too, if both differ, or the other way
round, so that such an op must never be given a range of its own. Everything else has one. Source:
the TFLite quantization specification, https://ai.google.dev/edge/litert/models/quantization_spec,
where "all inputs and outputs must have the same scale", and `SameScalesOpInterface` in the op
definitions of the converter. A test compares each with its file.
"""
_INTERPOLATING = (layers.UpSampling2D, layers.Resizing)
_FIXED_OPERATIONS = {
    "Sigmoid": activations.sigmoid,
    "Softmax": activations.softmax,
    "Tanh": activations.tanh,
}

_INT8_OPERATIONS = {"Gelu", "HardSilu", "HardTanh", "Silu", "SoftShrink"}
_INT8_LAYERS = (layers.LeakyReLU, layers.PReLU, layers.Softmax)

_NO_KERNEL = {
    layers.Conv3D: "TFLite's CONV_3D has no int8 kernel",
    layers.Conv3DTranspose: "TFLite's CONV_3D_TRANSPOSE has no int8 kernel",
}
_SUMS_IN_FLOAT = {
    layers.GroupNormalization: "its sums of squares need float",
    layers.LayerNormalization: "its sums of squares need float",
    layers.RMSNormalization: "its sums of squares need float",
    layers.UnitNormalization: "its sums of squares need float",
    layers.ELU: "TFLite's ELU has no int8 kernel that the converter uses",
}


def rule_of(operation: Any) -> Rule:
    """Return the rule for a layer or an operation of `keras.ops`; `OWN` for an unknown one.

    >>> rule_of(layers.Flatten()).name, rule_of(layers.Dense(2)).name
    ('SAME', 'OWN')
    """
    name, kind = type(operation).__name__, rule_class(operation)
    if kind is layers.TimeDistributed:
        rule = rule_of(operation.layer)
        return rule if rule not in (Rule.JOINED, Rule.NONE) else Rule.OWN
    if kind in _INTERPOLATING or name == "Resize":
        return Rule.SAME if operation.interpolation == "nearest" else Rule.SHARED
    if not isinstance(operation, keras.layers.Layer):
        return _RULES.get(name, Rule.FIXED if name in _FIXED_OPERATIONS else Rule.OWN)
    if kind in _RULES:
        return _RULES[kind]
    composite = composite_of(operation)
    if composite is not None and composite.output_step is not None:
        return Rule.ROUNDED
    return Rule.OWN if fixed_output(operation) is None else Rule.FIXED


_WITH_ACTIVATION = (layers.Activation, layers.SeparableConv1D, layers.SeparableConv2D)


def fixed_output(operation: Any) -> tuple[float, float] | None:
    """Return the output range of an operation that has one whatever the data, else None."""
    if not isinstance(operation, keras.layers.Layer):
        return fixed_range(_FIXED_OPERATIONS.get(type(operation).__name__))
    kind = rule_class(operation)
    if kind is layers.TimeDistributed:
        return fixed_output(operation.layer)
    if kind is layers.Softmax:
        return fixed_range(activations.softmax)
    if linear.is_linear(operation) or kind in _WITH_ACTIVATION:
        return fixed_range(operation.activation)
    return None


def is_relu(operation: Any) -> bool:
    """Return whether it is an activation that TFLite computes within the op before it."""
    kind = rule_class(operation)
    if kind is layers.ReLU:
        # A largest value is where the range ends; see `converters.export.rewrites`.
        return not operation.negative_slope and not operation.threshold
    if kind is layers.Activation:
        return is_fused(operation.activation)
    if type(operation).__name__ == "Clip":
        bounds = (operation.x_min, operation.x_max)
        return all(isinstance(bound, int | float) for bound in bounds) and bounds == (0, 6)
    return type(operation).__name__ in ("Relu", "Relu6")


def needs_wrapper(layer: keras.layers.Layer, args: Any, kwargs: Any) -> bool:
    """Return whether the layer computes differently in int8, beyond the rounding of its output.

    Args:
        layer: A built layer.
        args: Positional arguments that it is called with, symbolic tensors among them.
        kwargs: Keyword arguments, in the same form.

    Returns:
        True or False.
    """
    if isinstance(layer, layers.BatchNormalization):  # `FreezeBatchNorm` finds it.
        return True
    if rule_class(layer) is layers.Softmax:
        return kwargs.get("mask", args[1] if len(args) > 1 else None) is not None
    if has_rule(layer):
        computes = linear.is_linear(layer) or affine.is_affine(layer)
        return computes or (composite_of(layer) is not None and why_float(layer) is None)
    return bool(kernels_of(layer)) and float_reason(layer, args, kwargs) is None


def rounds_biases(layer: keras.layers.Layer) -> bool:
    """Return whether the wrapper of the layer rounds biases, by the steps of the inputs."""
    if linear.is_linear(layer) or affine.is_affine(layer):
        return True
    return composite_of(layer) is not None and bool(kernels_of(layer))


def why_float(operation: Any) -> str | None:
    """Return why the tables say that an operation is computed in float in the file, or None."""
    kind = rule_class(operation)
    if kind is layers.TimeDistributed and why_float(operation.layer) is not None:
        return why_float(operation.layer)
    reason = _NO_KERNEL.get(kind) or _SUMS_IN_FLOAT.get(kind)
    if reason is None and kind in COMPOSITES:
        return COMPOSITES[kind].applies(operation)
    return reason


def has_rule(operation: Any) -> bool:
    """Return whether the tables say how the operation is computed in the file.

    >>> has_rule(layers.Dense(2)), has_rule(layers.Lambda(lambda x: x))
    (True, False)
    """
    if not isinstance(operation, keras.layers.Layer):
        known = type(operation).__name__ in _INT8_OPERATIONS
        return known or rule_of(operation) is not Rule.OWN
    kind = rule_class(operation)
    if kind is layers.TimeDistributed:
        return has_rule(operation.layer)
    if why_float(operation) is not None or rule_of(operation) is not Rule.OWN:
        return True
    computes = linear.is_linear(operation) or affine.is_affine(operation) or is_relu(operation)
    return computes or kind in _INT8_LAYERS or kind in COMPOSITES


def float_reason(operation: Any, args: Any, kwargs: Any) -> str | None:
    """Return why a call is computed in float in the file, or None if it is not.

    What has no rule is traced: it is int8 if it is a single op that has an int8 form.

    Args:
        operation: A layer or an operation of `keras.ops`.
        args: Positional arguments of the call, symbolic tensors among them.
        kwargs: Keyword arguments, in the same form.

    Returns:
        The reason in words, or None.
    """
    if has_rule(operation):
        return why_float(operation) or _activation_reason(operation)
    if rule_class(operation) is layers.TimeDistributed:
        first, *_ = keras.tree.flatten((args, kwargs))
        step = keras.KerasTensor((first.shape[0], *first.shape[2:]), first.dtype)
        return float_reason(operation.layer, (step,), {})
    return trace(operation, args, kwargs).why_float()


def _activation_reason(operation: Any) -> str | None:
    if rule_class(operation) is layers.TimeDistributed:
        return _activation_reason(operation.layer)
    activation = getattr(operation, "activation", None)
    return None if activation is None else activation_reason(activation)


def activation_reason(activation: Any) -> str | None:
    """Return why an activation function is computed in float in the file, or None if it is not."""
    if has_int8_form(activation):
        return None
    reason = trace(activation, (keras.KerasTensor((1, 4, 4, 8), "float32"),), {}).why_float()
    name = getattr(activation, "__name__", type(activation).__name__)
    return reason and f"its activation, {name}: {reason}"
