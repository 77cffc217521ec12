"""`quantize_aware`: a Keras model -> one that trains as its int8 file will compute; and back."""

from __future__ import annotations

from typing import Any

import keras
from keras.layers import Layer

from tfcompress.model import filters as _filters
from tfcompress.model.checks import check_finite
from tfcompress.model.filters import Filters
from tfcompress.model.functionalize import with_graph
from tfcompress.model.graph import Node, copy_layer, ends, is_graph, rebuild
from tfcompress.model.kernels import kernels_of
from tfcompress.model.layers import walk
from tfcompress.model.quantized import is_quantized
from tfcompress.quantization.ops.linear import is_linear

from .fake_quant import FakeQuant
from .placement import Placement, place
from .scheme import Int8Scheme
from .wrapper import QuantizeWrapper

__all__ = ["quantize_aware"]


def quantize_aware(
    model: keras.Model,
    filters: Filters = None,
    exclude: Filters = None,
    scheme: Int8Scheme = Int8Scheme(),  # noqa: B008 - frozen
    float_first: bool = False,
    float_last: bool = False,
) -> keras.Model:
    """A copy of a model that computes as its int8 .tflite file will, and trains so.

    Kernels are rounded to int8 where they are read, and activations wherever the file will have an
    int8 tensor: after a convolution with its batch normalization and ReLU, not in between. Compile
    and fit it, at a small learning rate, some epochs; then `converters.convert(qat, path,
    converters.Int8())` needs no calibration data. Ranges of activations come from `calibrate`, or
    else from the first batches.

    >>> inputs = keras.Input((4,), name="x")
    >>> model = keras.Model(inputs, keras.layers.Dense(2, name="head")(inputs))
    >>> [layer.name for layer in quantize_aware(model).layers]
    ['x', 'fake_quant_x', 'quantized_head', 'head']

    Args:
        model: A built model; nested ones are quantized inside. It stays as it is. A subclassed one
            is read off its `call` where that is sound, and becomes a functional one.
        filters: Which layers to quantize, as everywhere. Defaults to all.
        exclude: Which of these to keep in float. Defaults to none.
        scheme: How. Defaults to `Int8Scheme()`.
        float_first: Whether the first layers with kernels stay in float. Defaults to False.
        float_last: Whether the last layers with kernels do. Defaults to False.

    Returns:
        A functional model, not compiled, with copies of all weights. A class of the model's own,
        with a `train_step` say, is not kept.

    Raises:
        TypeError: It is no Keras model, or an argument has a wrong type.
        ValueError: It is not built, quantized already, has string inputs or nothing to quantize; it
            is subclassed and cannot be read off its `call`; or a weight is NaN.

    Reference:
        Jacob et al. 2018, https://arxiv.org/abs/1712.05877
    """
    model = with_graph(model)
    if not isinstance(scheme, Int8Scheme):
        raise TypeError(f"scheme must be an Int8Scheme. Received: scheme={scheme!r}")
    _check(model)
    in_float = set() if filters is None else set(_layers(model)) - _meant(model, filters)
    if exclude is not None:
        in_float |= _meant(model, exclude)
    in_float |= ends(model, float_first, float_last)
    return _Quantizer(scheme, in_float).build(model, nested=False)


class _Quantizer:
    """Builds the quantized copy of a model and of those nested in it, each layer once."""

    def __init__(self, scheme: Int8Scheme, in_float: set[int]) -> None:
        self.options: dict[str, Any] = {
            "ranges": scheme.ranges,
            "momentum": scheme.momentum,
            "symmetric": scheme.symmetric_activations,
        }
        self.in_float = in_float
        self.copies: dict[int, Layer] = {}

    def build(self, model: keras.Model, nested: bool) -> keras.Model:
        placement = place(model, self.in_float, nested)
        ranges: dict[str, FakeQuant] = {}

        def call(node: Node, args: Any, kwargs: Any) -> list[Any]:
            outputs: list[Any] = keras.tree.flatten(self._call(node, args, kwargs, placement))
            for index, key in enumerate(node.outputs):
                if key in placement.ranges:
                    name = placement.ranges[key]
                    if name not in ranges:
                        ranges[name] = self._fake_quant(name, placement)
                    options = {"observe": False} if key in placement.shared else {}
                    outputs[index] = ranges[name](outputs[index], **options)
            return outputs

        return rebuild(model, call, model.name)

    def _call(self, node: Node, args: Any, kwargs: Any, placement: Placement) -> Any:
        operation = node.operation
        if node.call.is_input or placement.absorbs(node):
            return args[0]
        if not isinstance(operation, Layer):
            return operation(*args, **kwargs)
        key = id(operation)
        if key not in self.copies:
            if is_graph(operation):
                self.copies[key] = self.build(operation, nested=True)
            else:
                layer = copy_layer(operation, args, kwargs)
                chain = placement.wrapped.get(key)
                self.copies[key] = (
                    layer
                    if chain is None
                    else self._wrap(layer, chain, key, placement.ends.get(key))
                )
        return self.copies[key](*args, **kwargs)

    def _wrap(self, layer: Layer, chain: list[Node], key: int, name: str | None) -> QuantizeWrapper:
        activation = None
        if is_linear(layer) and layer.activation is not keras.activations.linear:
            activation, layer.activation = layer.activation, keras.activations.linear
        then = [copy_layer(node.operation, node.call.arguments.args, {}) for node in chain]
        return QuantizeWrapper(
            layer,
            then,
            activation,
            in_float=key in self.in_float,
            dtype=layer.dtype_policy,
            name=name or f"quantized_{layer.name}",
            **self.options,
        )

    def _fake_quant(self, name: str, placement: Placement) -> FakeQuant:
        return FakeQuant(
            fixed=placement.fixed.get(name),
            calls=placement.calls.get(name, 1),
            name=placement.names[name],
            **self.options,
        )


def _check(model: keras.Model) -> None:
    if is_quantized(model):
        raise ValueError(
            f"The model {model.name!r} is quantization-aware already. `strip` makes it a float "
            "model again."
        )
    for tensor in model.inputs:
        if keras.backend.standardize_dtype(tensor.dtype) == "string":
            raise ValueError(
                f"Input {tensor.name!r} of model {model.name!r} takes strings, which no .tflite "
                "model computes with. Leave the text preprocessing out of the model."
            )
    check_finite(model)
    if not any(kernels_of(model)) and not any(v.trainable for v in model.variables):
        raise ValueError(
            f"There is nothing to quantize in model {model.name!r}: it has no weights."
        )


def _layers(model: keras.Model) -> dict[int, tuple[str, Any]]:
    return {id(lineage[-1]): (path, lineage) for path, lineage in walk(model) if lineage}


def _meant(model: keras.Model, filters: Filters) -> set[int]:
    """Ids of the layers that `filters` means, at least one."""
    _filters.check(filters)
    layers = _layers(model)
    found = {
        key for key, (path, lineage) in layers.items() if _filters.matches(filters, path, lineage)
    }
    missing = [
        entry
        for entry in (filters if isinstance(filters, list | tuple) else [])
        if not any(_filters.matches([entry], *place) for place in layers.values())
    ]
    if missing or not found:
        names = ", ".join(path for path, _ in layers.values())
        raise ValueError(
            f"No layer of {model.name!r} is meant by {missing[0] if missing else filters!r}. "
            f"There are: {names}."
        )
    return found
