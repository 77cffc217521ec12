"""A quantization-aware model -> the float model again."""

from __future__ import annotations

from typing import Any

import keras
from keras.layers import Layer

from tfcompress.model.graph import Node, copy_layer, functional, is_graph, rebuild
from tfcompress.model.quantized import is_quantized

from .fake_quant import FakeQuant
from .wrapper import QuantizeWrapper

__all__ = ["strip"]


def strip(model: keras.Model) -> keras.Model:
    """The float model again, of one from `quantize_aware`, with the weights as trained.

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
        TypeError: It is no Keras model.
        ValueError: It holds nothing from `quantize_aware`.
    """
    functional(model)
    if not is_quantized(model):
        raise ValueError(
            f"The model {model.name!r} is none from quantize_aware: there is nothing to strip."
        )
    copies: dict[int, Any] = {}

    def build(model: keras.Model) -> keras.Model:
        return rebuild(model, call, model.name)

    def call(node: Node, args: Any, kwargs: Any) -> Any:
        operation, key = node.operation, id(node.operation)
        if node.call.is_input or isinstance(operation, FakeQuant):
            return args[0]
        if not isinstance(operation, Layer):
            return operation(*args, **kwargs)
        if isinstance(operation, QuantizeWrapper):
            if key not in copies:
                copies[key] = operation.unwrapped(args, kwargs)
            first, *then = copies[key]
            outputs = first(*args, **kwargs)
            for layer in then:
                outputs = layer(outputs)
            return outputs
        if key not in copies:
            copies[key] = (
                build(operation) if is_graph(operation) else copy_layer(operation, args, kwargs)
            )
        return copies[key](*args, **kwargs)

    return build(model)
