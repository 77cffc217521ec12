"""The layers of a model, however deep, each once, with their paths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import keras

from .keras_private import child_layers, flat_layers

__all__ = ["Lineage", "all_layers", "children", "own_weights", "trained", "walk"]

Lineage: TypeAlias = tuple[keras.layers.Layer, ...]
"""A layer and those around it, outermost first; the model itself left out."""


def walk(model: keras.Model) -> Iterator[tuple[str, Lineage]]:
    """Every layer of a model, depth first, those inside other layers too.

    >>> outer = keras.layers.TimeDistributed(keras.layers.Dense(2, name="dense"), name="outer")
    >>> model = keras.Sequential([keras.Input((3, 4), name="x"), outer], name="model")
    >>> [path for path, lineage in walk(model)]
    ['model', 'x', 'outer', 'outer/dense']

    Args:
        model: A model.

    Yields:
        Path, the names joined by slashes from the model down, and lineage; of the model itself, its
        name and an empty lineage. A layer in several places comes once, at the first.
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
    """The layer and everything inside it, each once, in the order of creation."""
    yield from dict.fromkeys(flat_layers(layer))


def children(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers right inside a layer, be it a model or not."""
    return child_layers(layer)


def own_weights(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The weights that a layer holds itself, without those of the layers inside it."""
    inside = {id(weight) for child in children(layer) for weight in child.weights}
    return [weight for weight in layer.weights if id(weight) not in inside]


def trained(model: keras.Model) -> keras.Model:
    """The model that training compresses: the student of a Distiller, else the model itself."""
    return model.student if isinstance(model, keras.distillation.Distiller) else model
