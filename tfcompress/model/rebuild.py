"""Building a model anew along Keras' graph, with layers copied or replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from . import keras_private
from .graph import Node, functional, nodes

__all__ = ["copy_layer", "from_config", "rebuild", "symbolic_call"]


def rebuild(
    model: keras.Model,
    call: Callable[[Node, Any, Any], Any],
    name: str,
    called_with: list[Any] | None = None,
    finish: Callable[..., keras.Model] = keras.Model,
) -> keras.Model:
    """Return a new functional model along the graph of another.

    Args:
        model: A functional or sequential model.
        call: Function `(node, args, kwargs) -> outputs` that is called for each node. Its result
            replaces the node's outputs. For an input, `args` holds the new symbolic input.
        name: Name of the new model.
        called_with: A tensor for each input, whose number of channels the new input has. Defaults
            to None: the inputs stay as they are.
        finish: Function `(inputs, outputs, name=name) -> model` that makes the model of the new
            symbolic tensors. Defaults to `keras.Model`.

    Returns:
        The new model, with inputs and outputs in the same structures.
    """
    graph = functional(model)
    given = graph.inputs if called_with is None else called_with
    channels = {id(old): new.shape[-1:] for old, new in zip(graph.inputs, given, strict=True)}
    inputs = keras.tree.map_structure(
        lambda tensor: _new_input(tensor, channels[id(tensor)]), graph.input
    )
    fresh = {
        id(old): new for old, new in zip(graph.inputs, keras.tree.flatten(inputs), strict=True)
    }
    values: dict[int, Any] = {}
    for node in nodes(model):
        if node.call.is_input:
            args, kwargs = (fresh[node.outputs[0]],), {}
        else:
            args, kwargs = node.call.arguments.fill_in(values)
        outputs = keras.tree.flatten(call(node, args, kwargs))
        values.update(zip(node.outputs, outputs, strict=True))
    results = keras.tree.map_structure(lambda tensor: values[id(tensor)], graph.output)
    return finish(inputs, results, name=name)


def _new_input(tensor: Any, channels: tuple[int | None, ...]) -> Any:
    layer = keras_private.producer(tensor)
    optional = getattr(layer, "optional", False)
    # A free size stays free.
    kept = tensor.shape[-1:] in ((), (None,))
    shape = tensor.shape if kept else (*tensor.shape[:-1], *channels)
    return keras.Input(batch_shape=shape, dtype=tensor.dtype, name=layer.name, optional=optional)


def copy_layer(layer: keras.layers.Layer, args: Any, kwargs: Any) -> keras.layers.Layer:
    """Return a copy of a layer with its weights, built on the arguments of a call.

    Raises:
        ValueError: The layer cannot be made from its own config.
    """
    try:
        config = layer.get_config()
    except Exception as error:
        raise _not_copied(layer) from error
    return from_config(layer, config, args, kwargs)


def from_config(
    layer: keras.layers.Layer,
    config: dict[str, Any],
    args: Any,
    kwargs: Any,
    value: Callable[[keras.Variable], Any] = lambda variable: variable,
) -> keras.layers.Layer:
    """Return a copy of a layer with another config and with weights that `value` computes."""
    try:
        if isinstance(layer, keras.layers.Lambda):
            # The function is already in this process, so no foreign code is loaded.
            copy = keras.layers.Lambda.from_config(config, safe_mode=False)
            # The original function has its closure and globals, which the config does not hold.
            copy.function = layer.function
        else:
            copy = type(layer).from_config(config)
    except Exception as error:
        raise _not_copied(layer, f": {error}") from error
    symbolic_call(copy, args, kwargs)
    old, new = [value(variable) for variable in layer.variables], copy.variables
    if [tuple(v.shape) for v in old] != [tuple(v.shape) for v in new]:
        raise ValueError(
            f"Layer {layer.name!r} ({type(layer).__name__}) cannot be copied: made from its own "
            f"config it has other weights, {[v.path for v in new]} instead of "
            f"{[v.path for v in layer.variables]}."
        )
    for source, target in zip(old, new, strict=True):
        target.assign(source)
    if hasattr(copy, "finalize_state"):
        copy.finalize_state()  # Normalization keeps tensors that it computes from its weights.
    return copy


def _not_copied(layer: keras.layers.Layer, why: str = "") -> ValueError:
    return ValueError(
        f"Layer {layer.name!r} ({type(layer).__name__}) cannot be copied, because it cannot be "
        f"made from its own config{why}. Give the class a `get_config` that returns the "
        "arguments of its `__init__`."
    )


def symbolic_call(layer: keras.layers.Layer, args: Any, kwargs: Any) -> Any:
    """Call a layer on symbolic tensors without a graph, so that it builds itself."""

    def detach(x: Any) -> Any:
        if not isinstance(x, keras.KerasTensor):
            return x
        return keras.KerasTensor(x.shape, x.dtype)

    args, kwargs = keras.tree.map_structure(detach, (args, kwargs))
    before = keras_private.number_of_calls(layer)
    outputs = layer(*args, **kwargs)
    keras_private.forget_calls(layer, before)
    return outputs
