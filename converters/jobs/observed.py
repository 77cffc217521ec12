"""The values of all tensors of a float file, counted on samples. Runs in child processes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from ..passes.graph import Graph, graphs
from .histogram import Histogram, NotFinite, Part
from .ranges import is_float, producers
from .tensor_values import STATEFUL, Samples, inputs_of, runs

Array = np.ndarray[Any, np.dtype[Any]]

_RUNS = 16
"""Runs that are counted together, which takes less time than each alone."""


class Observed(NamedTuple):
    """What samples made of the tensors of a file, by index.

    Attributes:
        values: The values of each float tensor: of inputs and of what ops compute.
        means: The mean of each channel (the last axis) of the tensors for which it was asked.
    """

    values: dict[int, Histogram]
    means: dict[int, Array]


def why_unobservable(model: Any) -> str:
    """Return why not all tensors of a file can be read after a run.

    Args:
        model: The `ModelT` of a float file.

    Returns:
        What the file holds: loops, branches, variables or custom ops; "" if there is nothing.
    """
    parts = graphs(model)
    ops = {parts[0].op(node) for node in parts[0].tables.operators} & STATEFUL
    if ops:
        return f"it holds {', '.join(sorted(ops))}, of which some values are out of reach"
    if any(tensor.isVariable for tensor in parts[0].tables.tensors):
        return "it keeps a state between runs"
    if len(parts) > 1:
        return f"it holds {len(parts)} graphs"
    count = len(model.signatureDefs or ())
    return "" if count == 1 else f"it has {count} signatures"


def observe(graph: Graph, samples: Samples, averaged: Collection[int] = ()) -> Observed:
    """Count the values of all float tensors that the samples reach.

    Args:
        graph: The graph of a file that `why_unobservable` finds nothing in. It stays as it is.
        samples: Samples for the inputs of the file.
        averaged: Tensors whose channels are averaged, too. Defaults to none.

    Returns:
        What was seen.

    Raises:
        NotFinite: A tensor becomes NaN.
    """
    given = inputs_of(graph.model).values()
    tensors = [index for index in (*given, *producers(graph)) if is_float(graph, index)]
    seen = {index: Histogram() for index in tensors}
    waiting: dict[int, list[Part]] = {index: [] for index in tensors}
    sums: dict[int, Array] = {}
    for rows, values in runs(graph, tensors, samples):
        for index in tensors:
            array = values(index)
            if index in averaged:
                mean = array.mean(tuple(range(array.ndim - 1)), dtype=np.float64)
                sums[index] = sums.get(index, 0.0) + mean * rows
            by_sample = array.reshape(rows if array.size % rows == 0 else 1, -1)
            try:
                waiting[index].append(Part.of(by_sample))
            except NotFinite as error:
                name = graph.name(index)
                what = f"computes NaN on these samples, first in tensor '{name}'"
                raise NotFinite(what) from error
            if len(waiting[index]) == _RUNS:
                seen[index] = seen[index].join(waiting[index])
                waiting[index] = []
    seen = {index: seen[index].join(parts) for index, parts in waiting.items()}
    return Observed(seen, {index: total / samples.size for index, total in sums.items()})
