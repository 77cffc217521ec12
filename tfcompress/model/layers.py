"""Walk the layers of a model at any depth, with their paths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import keras

from .checks import check_no_keras_2
from .keras_private import child_layers, flat_layers

__all__ = [
    "Lineage",
    "Origin",
    "all_layers",
    "children",
    "original",
    "own_weights",
    "rule_class",
    "trained",
    "walk",
]

Lineage: TypeAlias = tuple[keras.layers.Layer, ...]
"""A layer and the layers around it, outermost first, without the model itself."""


@dataclass(frozen=True)
class Origin:
    """Where a layer of a model stands that `open_layers` opened.

    Attributes:
        lineage: The layer of that model, with the layers around it.
    """

    lineage: Lineage
    NAME: ClassVar[str] = "_opened_from"


def original(lineage: Sequence[keras.layers.Layer]) -> Lineage:
    """Return the lineage that a layer had before `open_layers` opened the layers around it.

    Args:
        lineage: The layer and those around it, outermost first, without the model itself.

    Returns:
        A lineage in the model that was opened; empty for a layer of any other model.
    """
    for index in reversed(range(len(lineage))):
        found = getattr(lineage[index], Origin.NAME, None)
        if isinstance(found, Origin):
            return (*found.lineage, *lineage[index + 1 :])
    return ()


def walk(model: keras.Model) -> Iterator[tuple[str, Lineage]]:
    """Yield every layer of a model one time, depth first, with layers inside other layers.

    >>> outer = keras.layers.TimeDistributed(keras.layers.Dense(2, name="dense"), name="outer")
    >>> model = keras.Sequential([keras.Input((3, 4), name="x"), outer], name="model")
    >>> [path for path, lineage in walk(model)]
    ['model', 'x', 'outer', 'outer/dense']

    Args:
        model: A Keras model.

    Yields:
        The path, which joins the names from the model down with slashes, and the lineage. For the
        model itself, its name and an empty lineage. A layer in several places has the first path.
    """
    yield from _walk(model, (), set())


def _walk(
    layer: keras.layers.Layer, lineage: Lineage, seen: set[int]
) -> Iterator[tuple[str, Lineage]]:
    seen.add(id(layer))
    yield "/".join(part.name for part in lineage) or layer.name, lineage
    for child in children(layer):
        if id(child) not in seen:
            yield from _walk(child, (*lineage, child), seen)


def all_layers(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """Yield a layer and all layers inside it, each one time, in the order of creation."""
    yield from dict.fromkeys(flat_layers(layer))


def children(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Return the layers directly inside a layer, which may be a model."""
    return child_layers(layer)


def own_weights(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Return the weights of a layer without the weights of the layers inside it."""
    inside = {id(weight) for child in children(layer) for weight in child.weights}
    return [weight for weight in layer.weights if id(weight) not in inside]


def rule_class(layer: keras.layers.Layer) -> type:
    """Return the class by which tables of layers look a layer up.

    That is the Keras class that the layer computes as: its own, or its base's if it has another
    constructor or config and nothing else. A subclass that replaces any other method may compute
    anything, so that it has a class of its own, and no rule.

    >>> class OldConv(keras.layers.DepthwiseConv2D):
    ...     def __init__(self, *args, groups=1, **kwargs):
    ...         super().__init__(*args, **kwargs)
    >>> rule_class(OldConv(3)).__name__
    'DepthwiseConv2D'

    Args:
        layer: A layer.

    Returns:
        A class of Keras, or the layer's own class.
    """
    own: set[str] = set()
    for base in type(layer).__mro__:
        if base.__module__.split(".")[0] == "keras":
            changed = {name for name in own if hasattr(base, name)}
            return base if changed <= _CONFIG else type(layer)
        own |= {name for name in vars(base) if name == "__call__" or not name.startswith("__")}
    return type(layer)


_CONFIG = {"get_config", "from_config"}


def trained(model: keras.Model) -> keras.Model:
    """Return the model that training compresses: a Distiller's student, else the model itself."""
    check_no_keras_2(model)
    return model.student if isinstance(model, keras.distillation.Distiller) else model
