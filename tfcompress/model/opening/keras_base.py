"""A layer of a class of its own that computes what a layer of Keras does."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import keras

from tfcompress.model import keras_private
from tfcompress.model.layers import rule_class
from tfcompress.model.rebuild import can_be_remade

from .calls import Call, NotOpened, Recording, is_idle_cast, same_recording
from .recording import record

__all__ = ["as_keras_layer", "savable", "taken_by"]


def as_keras_layer(layer: Any, args: Any, kwargs: Any) -> keras.layers.Layer | None:
    """Return a layer in the class of Keras that it descends from, if it computes the same there.

    An attention layer that could use a cache, and is called without one, is one of Keras', which
    all methods know as a whole. Of masks of integers, only 0 and 1 are looked at.

    Args:
        layer: A built layer.
        args: Positional arguments of the call, symbolic tensors among them.
        kwargs: Keyword arguments, in the same form.

    Returns:
        A layer with the same weights, to be called with what it takes; None if there is no such
        class, or if its `call` does anything else with these arguments.
    """
    base = next(cls for cls in type(layer).__mro__ if cls.__module__.split(".")[0] == "keras")
    if base not in (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention):
        return None
    rest = taken_by(base, kwargs)
    if any(kwargs[name] is not None for name in kwargs.keys() - rest.keys()):
        return None
    twin: keras.layers.Layer = keras_private.renamed(layer, layer.name, base)
    if not can_be_remade(twin):  # Whisper's keys have no bias, and its queries have one.
        return None
    mask = kwargs.get("attention_mask")
    bools = {} if mask is None else {"attention_mask": keras.KerasTensor(mask.shape, "bool")}
    try:
        own = record(layer, args, {**kwargs, **bools})
        other = record(twin, args, {**rest, **bools})
    except NotOpened:
        return None
    return twin if same_recording(_without_casts(own), _without_casts(other)) else None


def savable(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Return a layer, or an `Identity` that Keras can save in its place.

    Keras' own has no config if its dtype was given as a policy.
    """
    if rule_class(layer) is not keras.layers.Identity or can_be_remade(layer):
        return layer
    return keras.layers.Identity(dtype=layer.dtype_policy.name)


def _without_casts(recording: Recording) -> Recording:
    """Return a recording without the casts of tensors to the dtype that they have."""
    calls: list[Call] = []
    before: dict[int, Any] = {}
    for call in recording.calls:
        args, kwargs = keras.tree.map_structure(
            lambda x: before.get(id(x), x), (call.args, call.kwargs)
        )
        if is_idle_cast(call.operation, args):
            before[id(call.outputs[0])] = args[0]
        else:
            calls.append(replace(call, args=args, kwargs=kwargs))
    return replace(recording, calls=calls)


def taken_by(kind: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return those of some keyword arguments that the `call` of a class takes."""
    taken = inspect.signature(kind.call).parameters
    return {name: value for name, value in kwargs.items() if name in taken}
