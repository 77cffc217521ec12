"""The table of layers: how int8 files compute each Keras layer and operation."""

from __future__ import annotations

from enum import Enum
from typing import Any

import keras
from keras import activations, layers

from tfcompress.model.kernels import kernels_of

from .composites.table import COMPOSITES, composite_of
from .ops import affine, linear
from .ops.activations import fixed_range, is_fused

__all__ = [
    "Rule",
    "fixed_output",
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
    FIXED = "int8, in the range that TFLite prescribes"
    OWN = "int8, in a range of its own"
    ROUNDED = "int8, in the range of its table"
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
            "Dsplit",
            "ExpandDims",
            "Flip",
            "Fliplr",
            "Flipud",
            "GetItem",
            "Hsplit",
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
            "Rot90",
            "Slice",
            "SpaceToDepth",
            "Split",
            "Squeeze",
            "StopGradient",
            "Swapaxes",
            "Take",
            "TakeAlongAxis",
            "Tile",
            "Transpose",
            "Unstack",
            "Vsplit",
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

_NO_KERNEL = {
    layers.Conv1DTranspose: "TFLite has no such op; it has Conv2DTranspose, on images of width 1",
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
    name = type(operation).__name__
    if type(operation) is layers.TimeDistributed:
        rule = rule_of(operation.layer)
        return rule if rule not in (Rule.JOINED, Rule.NONE) else Rule.OWN
    if isinstance(operation, _INTERPOLATING) or name == "Resize":
        return Rule.SAME if operation.interpolation == "nearest" else Rule.SHARED
    if not isinstance(operation, keras.layers.Layer):
        return _RULES.get(name, Rule.FIXED if name in _FIXED_OPERATIONS else Rule.OWN)
    if type(operation) in _RULES:
        return _RULES[type(operation)]
    composite = composite_of(operation)
    if composite is not None and composite.output_step is not None:
        return Rule.ROUNDED
    return Rule.OWN if fixed_output(operation) is None else Rule.FIXED


def fixed_output(operation: Any) -> tuple[float, float] | None:
    """Return the output range that TFLite prescribes for the operation, else None."""
    if not isinstance(operation, keras.layers.Layer):
        return fixed_range(_FIXED_OPERATIONS.get(type(operation).__name__))
    if type(operation) is layers.TimeDistributed:
        return fixed_output(operation.layer)
    if isinstance(operation, layers.Softmax):
        return fixed_range(activations.softmax)
    if linear.is_linear(operation) or isinstance(
        operation, layers.Activation | layers.SeparableConv1D | layers.SeparableConv2D
    ):
        return fixed_range(operation.activation)
    return None


def is_relu(operation: Any) -> bool:
    """Return whether it is an activation that TFLite computes within the op before it."""
    if isinstance(operation, layers.ReLU):
        plain = not operation.negative_slope and not operation.threshold
        return plain and operation.max_value in (None, 6.0)
    if isinstance(operation, layers.Activation):
        return is_fused(operation.activation)
    if type(operation).__name__ == "Clip":
        bounds = (operation.x_min, operation.x_max)
        return all(isinstance(bound, int | float) for bound in bounds) and bounds == (0, 6)
    return type(operation).__name__ in ("Relu", "Relu6")


def needs_wrapper(layer: keras.layers.Layer) -> bool:
    """Return whether the layer computes differently in int8, beyond the rounding of its output."""
    return (
        linear.is_linear(layer)
        or affine.is_affine(layer)
        or isinstance(layer, layers.BatchNormalization)  # `FreezeBatchNorm` finds it
        or (composite_of(layer) is not None and why_float(layer) is None)
        or (why_float(layer) is None and bool(kernels_of(layer)))
    )


def rounds_biases(layer: keras.layers.Layer) -> bool:
    """Return whether the wrapper of the layer rounds biases, by the steps of the inputs."""
    if linear.is_linear(layer) or affine.is_affine(layer):
        return True
    return composite_of(layer) is not None and bool(kernels_of(layer))


def why_float(operation: Any) -> str | None:
    """Return why the operation is computed in float in the file, or None if it is not."""
    if type(operation) is layers.TimeDistributed and why_float(operation.layer) is not None:
        return why_float(operation.layer)
    reason = _NO_KERNEL.get(type(operation)) or _SUMS_IN_FLOAT.get(type(operation))
    if reason is None and type(operation) in COMPOSITES:
        return COMPOSITES[type(operation)].applies(operation)
    return reason
