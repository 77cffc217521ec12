"""Building a model anew along Keras' graph, with layers copied or replaced."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import keras

from . import keras_private
from .graph import Node, all_nodes, functional, given_inputs, is_graph, nodes
from .layers import all_layers

__all__ = [
    "can_be_remade",
    "copy_layer",
    "from_config",
    "own_objects",
    "rebuild",
    "rebuild_layers",
    "symbolic_call",
    "warn_of_untied",
]


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
        made = zip(node.tensors, outputs, strict=True)
        dense = [new for old, new in made if isinstance(new, keras.KerasTensor) and not old.sparse]
        keras_private.set_dense(dense)
        values.update(zip(node.outputs, outputs, strict=True))
    results = keras.tree.map_structure(lambda tensor: values[id(tensor)], graph.output)
    return finish(inputs, results, name=name)


def rebuild_layers(model: keras.Model, copy: Callable[[Node, Any, Any], Any]) -> keras.Model:
    """Return a new functional model with copies of the layers and operations of another.

    Each is made once, however often it is called, in nested models too.

    Args:
        model: A functional or sequential model.
        copy: Function `(node, args, kwargs) -> copy` that is called with the first call of each
            layer or operation that is no model. The copy is called in its place.

    Returns:
        The new model, with the name of the old one.
    """
    copies: dict[int, Any] = {}

    def build(part: keras.Model, called_with: list[Any] | None = None) -> keras.Model:
        return rebuild(part, call, part.name, called_with)

    def call(node: Node, args: Any, kwargs: Any) -> Any:
        operation, key = node.operation, id(node.operation)
        if node.call.is_input:
            return args[0]
        if key not in copies:
            copies[key] = (
                build(operation, given_inputs(operation, args, kwargs))
                if is_graph(operation)
                else copy(node, args, kwargs)
            )
        return copies[key](*args, **kwargs)

    return build(model)


def warn_of_untied(model: keras.Model) -> None:
    """Warn of layers that share weights, since a model that is rebuilt layer by layer unties them.

    One layer that is called several times stays one layer, and needs no warning.

    Args:
        model: A functional or sequential model that is about to be rebuilt.
    """
    owners: dict[int, keras.layers.Layer] = {}
    found: dict[str, None] = {}
    operations = {id(node.operation): node.operation for node in all_nodes(model)}
    for layer in operations.values():
        if not isinstance(layer, keras.layers.Layer) or is_graph(layer):
            continue
        for weight in layer.weights:
            other = owners.setdefault(id(weight), layer)
            if other is not layer:
                found[f"'{other.name}' and '{layer.name}' share '{weight.path}'"] = None
    if found:
        warnings.warn(
            f"Layers of {model.name!r} are tied: {'; '.join(found)}. In the new model each has a "
            "copy of its own, so that they take more memory and are trained apart.",
            stacklevel=4,
        )


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
            with keras.saving.custom_object_scope(own_objects(layer)):
                copy = type(layer).from_config(_with_lambdas(layer, config))
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


def _with_lambdas(layer: keras.layers.Layer, config: dict[str, Any]) -> dict[str, Any]:
    """Return the config with the lambdas that the layer holds: Keras loads none from a config."""
    held = {key: vars(layer).get(key) for key in config}
    lambdas = {key: x for key, x in held.items() if getattr(x, "__name__", "") == "<lambda>"}
    return {**config, **lambdas}


def can_be_remade(layer: keras.layers.Layer) -> bool:
    """Return whether a layer can be made anew from what Keras writes about it into a file.

    >>> can_be_remade(keras.layers.Dense(2))
    True

    Args:
        layer: A layer.

    Returns:
        True or False.
    """
    try:
        with warnings.catch_warnings(), keras.saving.custom_object_scope(own_objects(layer)):
            warnings.simplefilter("ignore")
            copy = type(layer).from_config(layer.get_config())
            if shapes := layer.get_build_config():
                copy.build_from_config(shapes)
    except Exception:
        return False
    pairs = [[tuple(v.shape) for v in each.variables] for each in (layer, copy)]
    return not copy.built or pairs[0] == pairs[1]


def own_objects(layer: keras.layers.Layer) -> dict[str, Any]:
    """Return the classes and functions that a layer's config names, by their names.

    They are in this process already, so that a copy needs no registration with Keras, as a file
    does. It holds the classes of the layer and of layers inside it, and activations, regularizers,
    constraints and initializers.

    >>> def swish_twice(x):
    ...     return keras.activations.silu(2.0 * x)
    >>> sorted(own_objects(keras.layers.Dense(2, activation=swish_twice)))
    ['swish_twice']

    Args:
        layer: A layer or model.

    Returns:
        A dictionary for `keras.saving.custom_object_scope`.
    """
    found: dict[str, Any] = {}
    for part in all_layers(layer):
        for value in (type(part), *vars(part).values()):
            named = value if inspect.isfunction(value) or inspect.isclass(value) else type(value)
            if callable(value) and named.__module__.split(".")[0] != "keras":
                found[named.__name__] = named
                found[keras.saving.get_registered_name(named)] = named
    return found


def _not_copied(layer: keras.layers.Layer, why: str = "") -> ValueError:
    return ValueError(
        f"Layer {layer.name!r} ({type(layer).__name__}) cannot be copied, because it cannot be "
        f"made from its own config{why}. Give the class a `get_config` that returns the "
        "arguments of its `__init__`, and decorate classes and functions of your own in it with "
        "keras.saving.register_keras_serializable()."
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
