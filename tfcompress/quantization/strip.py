"""`strip`: a quantization-aware model -> the float model again."""

from __future__ import annotations

from typing import Any

import keras
from keras.layers import Layer

from tfcompress.model.graph import Node, functional, is_graph
from tfcompress.model.quantized import is_quantized, is_step_input
from tfcompress.model.rebuild import copy_layer, rebuild

from .fake_quant import FakeQuant
from .naming import original
from .steps import step_inputs
from .wrapper import QuantizeWrapper, without_steps

__all__ = ["strip"]


def strip(model: keras.Model) -> keras.Model:
    """Return the float model that a quantization-aware one was made from, with trained weights.

    >>> inputs = keras.Input((4,), name="x")
    >>> model = keras.Model(inputs, keras.layers.Dense(2, name="head")(inputs))
    >>> from tfcompress import quantize_aware
    >>> [layer.name for layer in strip(quantize_aware(model)).layers]
    ['x', 'head']

    Args:
        model: A quantization-aware model. It stays as it is.

    Returns:
        A functional model with the layers that there were before, not compiled.

    Raises:
        TypeError: If it is not a Keras model.
        ValueError: If it does not come from `quantize_aware`.
    """
    functional(model)
    if not is_quantized(model):
        raise ValueError(
            f"The model {model.name!r} does not come from quantize_aware: there is nothing to "
            "strip."
        )
    return _build(model, {})


def _build(model: keras.Model, copies: dict[int, Any]) -> keras.Model:
    """Return the float model; `copies` holds the layers that were copied already, by id."""

    def call(node: Node, args: Any, kwargs: Any) -> Any:
        operation, key = node.operation, id(node.operation)
        if is_step_input(operation) or kwargs.get("only_step") not in (None, False):
            return None
        if node.call.is_input or isinstance(operation, FakeQuant):
            return args[0]
        if not isinstance(operation, Layer):
            return original(operation)(*args, **kwargs)
        if isinstance(operation, QuantizeWrapper):
            kwargs = without_steps(kwargs)
            if key not in copies:
                copies[key] = operation.unwrapped(args, kwargs)
            first, *then = copies[key]
            outputs = first(*args, **kwargs)
            for layer in then:
                outputs = layer(outputs)
            return outputs
        if key not in copies:
            copies[key] = (
                _build(operation, copies)
                if is_graph(operation)
                else copy_layer(operation, args, kwargs)
            )
        if not is_graph(operation):
            return copies[key](*args, **kwargs)
        if step_inputs(operation):
            args = (args[0][0], *args[1:])
        outputs = keras.tree.flatten(copies[key](*args, **kwargs))
        return [*outputs, *[None] * (len(node.outputs) - len(outputs))]

    def finish(inputs: Any, outputs: Any, name: str) -> keras.Model:
        if step_inputs(model):
            inputs, *_ = inputs
        if any(tensor is None for tensor in keras.tree.flatten(outputs)):
            outputs, *_ = outputs
        return keras.Model(inputs, outputs, name=name)

    return rebuild(model, call, model.name, finish=finish)
