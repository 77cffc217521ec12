"""First layers that stay in float, because no int8 range is fine enough for their features."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from tfcompress.model.graph import Node, functional, is_graph, nodes
from tfcompress.model.layers import rule_class

from .layer_table import Rule, rule_of

__all__ = ["is_uneven", "uneven_first_layers"]

_SIGMAS = 3.0  # Features lie within so many standard deviations of their mean, but for a few.
_STEPS = 8.0  # Steps to a standard deviation: a signal-to-noise ratio of 29 dB.


def uneven_first_layers(model: keras.Model, in_float: Collection[int] = ()) -> set[int]:
    """Return the layers that normalize uneven features as they come in, and warn that they do.

    >>> inputs = keras.Input((2,))
    >>> norm = layers.Normalization(mean=[120.0, 110.0], variance=[3400.0, 3200.0])
    >>> uneven_first_layers(keras.Model(inputs, norm(inputs)))
    set()

    Args:
        model: A functional or sequential model.
        in_float: Ids of layers that stay in float anyway. Defaults to none.

    Returns:
        Ids of layers, and of operations with constants, that read inputs of the model, or of a
        model nested in it, which other operations may have moved about.
    """
    inputs = {id(tensor) for tensor in functional(model).inputs}
    found = {id(operation): operation for operation in _uneven(model, inputs)}
    found = {key: operation for key, operation in found.items() if key not in in_float}
    for operation in found.values():
        is_layer = isinstance(operation, keras.layers.Layer)
        same = f" exclude=['{operation.name}'] does the same as now without a warning."
        warnings.warn(
            f"{'Layer' if is_layer else 'Operation'} '{operation.name}' stays in float: its "
            "features differ so much that one int8 range would lose the small ones. The file takes "
            "float input. To have int8 throughout, scale the features before the model, or select "
            f"all layers with filters='.*'.{same if is_layer else ''}",
            stacklevel=3,
        )
    return set(found)


class _Scaled(NamedTuple):
    """Features as they come in, times `scale`, plus `offset`, which `operations` computed."""

    scale: Any = 1.0
    offset: Any = 0.0
    operations: tuple[Any, ...] = ()


def _uneven(model: keras.Model, raw: set[int]) -> list[Any]:
    """Return what brings uneven features to a common size; `raw` are the tensors that hold them."""
    found: list[Any] = []
    scaled = dict.fromkeys(raw, _Scaled())
    for node in nodes(model):
        operation, out = node.operation, node.outputs[0]
        if is_graph(operation):
            inner = zip(node.inputs, functional(operation).inputs, strict=True)
            found += _uneven(operation, {id(tensor) for key, tensor in inner if key in raw})
        elif node.inputs and raw.issuperset(node.inputs) and is_uneven(operation):
            found.append(operation)
        elif node.inputs and raw.issuperset(node.inputs) and _moves(operation):
            raw.update(node.outputs)
            scaled.update(dict.fromkeys(node.outputs, _Scaled()))
        elif len(node.inputs) == 1 and node.inputs[0] in scaled and _is_affine(node):
            scaled[out] = _after(node, scaled[node.inputs[0]])
            goes_on = any(reader is not None and _is_affine(reader) for reader in node.consumers)
            if not goes_on and _are_uneven(*_expected(scaled[out].scale, scaled[out].offset)):
                found += scaled[out].operations
    return found


def _moves(operation: Any) -> bool:
    return rule_of(operation) in (Rule.SAME, Rule.JOINED)


def _is_affine(node: Node) -> bool:
    """Return whether a node takes a tensor and a constant, and adds or multiplies them."""
    given = node.call.arguments.args
    constants = [x for x in given if not isinstance(x, keras.KerasTensor)]
    kind = type(node.operation).__name__
    if kind in ("Divide", "TrueDivide") and isinstance(given[0], keras.KerasTensor):
        kind = "Multiply"
    return kind in ("Add", "Multiply", "Subtract") and len(given) == 2 and len(constants) == 1


def _after(node: Node, before: _Scaled) -> _Scaled:
    (scale, offset, operations), kind = before, type(node.operation).__name__
    first, second = node.call.arguments.args
    constant = _array(second if isinstance(first, keras.KerasTensor) else first)
    if kind in ("Multiply", "Divide", "TrueDivide"):
        factor = constant if kind == "Multiply" else 1.0 / constant
        scale, offset = scale * factor, offset * factor
    else:
        offset = offset + (constant if kind == "Add" else -constant)
    return _Scaled(scale, offset, (*operations, node.operation))


def is_uneven(operation: Any) -> bool:
    """Return whether one int8 range for all features is too coarse for one of them.

    The layer's statistics say which features it expects. One range holds all of them, and zero. A
    feature whose standard deviation has fewer than 8 of the 255 steps is lost in it.

    >>> is_uneven(layers.Normalization(mean=[0.5, 40000.0], variance=[0.1, 1e8]))
    True
    >>> is_uneven(layers.Normalization(mean=[120.0, 110.0], variance=[3400.0, 3200.0]))
    False

    Args:
        operation: A layer or operation. Only Normalization, BatchNormalization and Rescaling say
            what they expect.
    """
    statistics = _statistics(operation)
    return statistics is not None and _are_uneven(*statistics)


def _are_uneven(mean: Any, deviation: Any) -> bool:
    mean, deviation = np.ravel(mean), np.ravel(deviation)
    low = min(0.0, float((mean - _SIGMAS * deviation).min()))
    high = max(0.0, float((mean + _SIGMAS * deviation).max()))
    varying = deviation[deviation > 0.0]
    return bool((varying < _STEPS * (high - low) / 255.0).any())


def _statistics(layer: Any) -> tuple[Any, Any] | None:
    """Return mean and standard deviation of each feature that the layer expects."""
    kind = rule_class(layer)
    if kind is layers.Normalization and not layer.invert:
        given = layer.input_mean is not None
        if not (given or layer.built):
            return None
        mean = layer.input_mean if given else layer.mean
        variance = layer.input_variance if given else layer.variance
        return _array(mean), np.sqrt(_array(variance))
    if kind is layers.BatchNormalization and layer.built:
        return _array(layer.moving_mean), np.sqrt(_array(layer.moving_variance) + layer.epsilon)
    if kind is layers.Rescaling:
        return _expected(_array(layer.scale), _array(layer.offset))
    return None


def _expected(scale: Any, offset: Any) -> tuple[Any, Any]:
    """Return mean and deviation of features that a scale and an offset bring to order one.

    Features that are multiplied by zero, and such that are only moved, tell nothing of themselves.
    """
    scale, offset = np.broadcast_arrays(scale, offset)
    if not scale.all() or (scale == 1.0).all():
        return np.zeros(1), np.zeros(1)
    return -offset / scale, 1.0 / np.abs(scale)


def _array(values: Any) -> Any:
    return keras.ops.convert_to_numpy(values).astype("float64")
