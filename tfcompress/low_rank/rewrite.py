"""A copy of a model in which some layers are replaced by several of low rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras.layers import Layer

from tfcompress.model.graph import Node, functional, is_graph
from tfcompress.model.keras_private import producer
from tfcompress.model.layers import walk
from tfcompress.model.rebuild import copy_layer, rebuild, warn_of_untied

from . import factors

__all__ = ["rewrite"]


def rewrite(model: keras.Model, ranks: Mapping[int, tuple[int, ...]], refine: int) -> keras.Model:
    """Return a copy of a model with some layers factorized.

    Args:
        model: A functional model; it stays as it is.
        ranks: The rank of each layer to be replaced, by `id(layer)`: one for an SVD, two for
            Tucker-2. `factors.why_not` has nothing against these layers.
        refine: Sweeps of HOOI over what Tucker-2 begins with.

    Returns:
        A functional model, not compiled.
    """
    warn_of_untied(model)
    return _Rewrite(model, ranks, refine).build(model)


class _Rewrite:
    """Builds the copy of a model and of the models nested in it, each layer once."""

    def __init__(
        self, model: keras.Model, ranks: Mapping[int, tuple[int, ...]], refine: int
    ) -> None:
        self.refine = refine
        self.ranks = ranks
        self.taken = {part.name for _, lineage in walk(model) for part in lineage}
        self.outputs = _outputs(model)
        self.copies: dict[int, list[Layer]] = {}

    def build(self, model: keras.Model) -> keras.Model:
        return rebuild(model, self._call, model.name)

    def _call(self, node: Node, args: Any, kwargs: Any) -> Any:
        operation, key = node.operation, id(node.operation)
        if node.call.is_input:
            return args[0]
        if not isinstance(operation, Layer):
            return operation(*args, **kwargs)
        if key not in self.copies:
            if key in self.ranks:
                return self._replace(operation, args, kwargs)
            nested = is_graph(operation)
            copy = self.build(operation) if nested else copy_layer(operation, args, kwargs)
            self.copies[key] = [copy]
        first, *then = self.copies[key]
        outputs = first(*args, **kwargs)
        for layer in then:
            outputs = layer(outputs)
        return outputs

    def _replace(self, layer: Any, args: Any, kwargs: Any) -> Any:
        """Call the new layers for the first time, which builds them, and assign their weights."""
        rank, kernel = self.ranks[id(layer)], factors.kernel_of(layer)
        names = self._names(layer, factors.count(layer, rank, factors.full_rank(layer, kernel)))
        made = factors.replace(layer, kernel, rank, self.refine, names)
        outputs = None
        for new, weights in made:
            outputs = new(*args, **kwargs) if outputs is None else new(outputs)
            factors.variable(new).assign(weights)
        last = made[-1][0]
        if getattr(last, "bias", None) is not None:
            last.bias.assign(layer.bias)
        self.copies[id(layer)] = [new for new, _ in made]
        return outputs

    def _names(self, layer: Layer, number: int) -> list[str]:
        base = layer.name
        while any(f"{base}_{i}" in self.taken for i in range(1, number + 1)):
            base += "_factor"
        names = [f"{base}_{i}" for i in range(1, number + 1)]
        if id(layer) in self.outputs:
            names[-1] = layer.name
        self.taken.update(names)
        return names


def _outputs(model: keras.Model) -> set[int]:
    """Return the ids of the layers that make the outputs of the model or of nested ones."""
    models = [model, *(part for _, lineage in walk(model) for part in lineage[-1:])]
    graphs = [functional(part) for part in models if is_graph(part)]
    return {id(producer(t)) for graph in graphs for t in graph.outputs}
