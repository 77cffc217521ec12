"""The layers of a model, however deep, each once, with their paths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import keras
import numpy as np

from .converters.scopes import children

__all__ = ["Lineage", "check_built", "check_finite", "own_weights", "trained", "walk"]

Lineage: TypeAlias = tuple[keras.layers.Layer, ...]
"""A layer and those around it, outermost first; the model itself left out."""


def check_built(model: object) -> None:
    """Raise if this is no Keras model that has its weights.

    Raises:
        TypeError: If it is no Keras model.
        ValueError: If it is not built.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected a keras.Model. Received: {model!r}")
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, so it has no weights yet. Give it an Input, "
            "or call it on a batch of data first."
        )


def check_finite(model: keras.Model) -> None:
    """Raise if a weight holds NaN or infinity.

    Raises:
        ValueError: One does; says which.
    """
    for variable in model.variables:
        values = keras.ops.convert_to_numpy(variable)
        if keras.backend.is_float_dtype(variable.dtype) and not np.isfinite(values).all():
            raise ValueError(
                f"Weight {variable.path!r} of model {model.name!r} holds NaN or infinite values. "
                "Training has probably diverged: go back to an earlier checkpoint."
            )


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


def own_weights(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The weights that a layer holds itself, without those of the layers inside it."""
    inside = {id(weight) for child in children(layer) for weight in child.weights}
    return [weight for weight in layer.weights if id(weight) not in inside]


def trained(model: keras.Model) -> keras.Model:
    """The model that training compresses: the student of a Distiller, else the model itself."""
    return model.student if isinstance(model, keras.distillation.Distiller) else model
