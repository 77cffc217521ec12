"""The layers of a model that may be factorized, and why others cannot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras

from tfcompress.model.checks import check_finite
from tfcompress.model.filters import Filters, select_layers
from tfcompress.model.functionalize import with_graph
from tfcompress.model.graph import calls
from tfcompress.model.kernels import kernels_of
from tfcompress.model.layers import Lineage, original, own_weights, walk
from tfcompress.model.quantized import is_quantized

from . import factors, ranks
from .ranks import Options, Shape

__all__ = ["Candidate", "Counts", "candidates", "factorable"]

Counts = dict[keras.layers.Layer, int | None]
"""Multiply-accumulates of each layer per sample; None if unknown."""


@dataclass(eq=False)
class Candidate:
    """A layer with kernels, and the ranks that it may get.

    Attributes:
        path: Names from the model down to the layer.
        lineage: The layer and those around it, outermost first, without the model.
        shapes: Shapes of its inputs, one for each call.
        reason: Why it cannot be factorized, or "".
        options: The ranks that it may get; None if there is a reason.
    """

    path: str
    lineage: Lineage
    shapes: list[Shape] = field(default_factory=list)
    reason: str = ""
    options: Options | None = None

    @property
    def layer(self) -> Any:
        """Return the layer itself."""
        return self.lineage[-1]


def factorable(model: keras.Model) -> keras.Model:
    """Return the model as a functional one, checked to be fit for factorization.

    Raises:
        TypeError: If it is no Keras model.
        ValueError: If it is not built, quantization-aware, or subclassed and cannot be read off its
            `call`; or if a weight is NaN.
    """
    model = with_graph(model)
    if is_quantized(model):
        raise ValueError(
            f"The model {model.name!r} is quantization-aware. Factorize first: "
            "quantize_aware(factorize(model, ...)). `strip` makes it a float model again."
        )
    check_finite(model)
    return model


def candidates(
    model: keras.Model, macs: Counts, filters: Filters, round_to: int, by_macs: bool
) -> list[Candidate]:
    """Return the layers of a model that have kernels, in the order of computation.

    Args:
        model: From `factorable`.
        macs: Multiply-accumulates of each layer.
        filters: Layers that may be factorized: a regular expression searched in the layer's path, a
            list of layers or names, or a function of the layer. None allows all.
        round_to: Ranks are multiples of this, or full.
        by_macs: Whether multiply-accumulates are to be saved. An `Embedding` has none, so that it
            is then left as it is.

    Returns:
        List of `Candidate`, each with either a reason or options.

    Raises:
        TypeError: If `filters` has the wrong type.
        ValueError: If `filters` or one of its entries selects no layer with a kernel.
    """
    found = _with_kernels(model)
    places = [(candidate.path, candidate.lineage) for candidate in found]
    selected = select_layers(model, filters, places, kind="layer with a kernel")
    for candidate in found:
        layer = candidate.layer
        if id(layer) not in selected:
            candidate.reason = "not selected by filters"
        elif by_macs and isinstance(layer, keras.layers.Embedding):
            candidate.reason = candidate.reason or "its lookups cost no MACs"
        if not candidate.reason:
            kernel, spent = factors.kernel_of(layer), macs.get(layer, 0)
            candidate.options = ranks.options(layer, kernel, candidate.shapes, spent, round_to)
    return found


def _with_kernels(model: keras.Model) -> list[Candidate]:
    """Find the layers with kernels; say why, where one cannot be factorized."""
    found: dict[int, Candidate] = {}
    holders: dict[int, str] = {}
    for lineage, shape in calls(model):
        layer = lineage[-1]
        for _, inside in walk(layer):
            if inside:
                holders[id(inside[-1])] = layer.name
        if isinstance(layer, factors.TYPES) or kernels_of(layer):
            path = "/".join(part.name for part in lineage)
            found.setdefault(id(layer), Candidate(path, lineage)).shapes.append(shape)
    owners: dict[int, set[str]] = {}
    for _, lineage in walk(model):
        for weight in own_weights(lineage[-1] if lineage else model):
            owners.setdefault(id(weight), set()).add(_users_path(lineage))
    for candidate in found.values():
        candidate.reason = factors.why_not(candidate.layer)
        if id(candidate.layer) in holders:
            candidate.reason = f"also used inside {holders[id(candidate.layer)]!r}"
        elif not candidate.reason:
            others = owners[id(factors.variable(candidate.layer))] - {
                _users_path(candidate.lineage)
            }
            if others:
                shared = ", ".join(map(repr, sorted(others)))
                candidate.reason = f"its kernel is shared with {shared}"
    return list(found.values())


def _users_path(lineage: Lineage) -> str:
    """Return where a layer stands in the user's model, whose layers may have been opened."""
    return "/".join(layer.name for layer in original(lineage) or lineage)
