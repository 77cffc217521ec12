"""What the tensors hold that kernels read, averaged over data, by unit.

Not what depthwise kernels read: of a channel they make but the same channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfcompress.model.graph import functional, is_graph, nodes

from .groups import ChannelGroup

__all__ = ["averages", "per_unit"]


def averages(
    model: keras.Model,
    groups: Sequence[ChannelGroup],
    batches: Iterable[list[Any]],
    measure: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
) -> list[npt.NDArray[np.float64] | None]:
    """The mean of a measure of each unit's activations, where kernels read them.

    Args:
        model: The model.
        groups: Groups of it.
        batches: Inputs in the order of the model's.
        measure: Of each value.

    Returns:
        For each group, an array with a value for each unit; None for a group that no tensor
        between layers shows.
    """
    wanted = {key for group in groups for key, _ in group.tensors}
    sums: dict[int, Any] = dict.fromkeys(wanted, 0.0)
    counts: dict[int, int] = dict.fromkeys(wanted, 0)
    for batch in batches:
        for key, tensor in _run(model, batch):
            if key in wanted:
                array = measure(np.asarray(keras.ops.convert_to_numpy(tensor), np.float64))
                sums[key] += array.reshape(-1, array.shape[-1]).sum(0)
                counts[key] += array.size // array.shape[-1]

    def mean(group: ChannelGroup) -> npt.NDArray[np.float64]:
        total = sum(per_unit(group, units, sums[key]) for key, units in group.tensors)
        number = sum(
            per_unit(group, units, np.full(len(units), counts[key])) for key, units in group.tensors
        )
        return np.asarray(total / np.maximum(number, 1))

    return [mean(group) if group.tensors else None for group in groups]


def per_unit(
    group: ChannelGroup, units: npt.NDArray[np.int64], values: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """Sum values along an axis by the unit that each place has."""
    mine = units >= 0
    return np.bincount(units[mine], values[mine], group.size).astype(np.float64)


def _run(model: keras.Model, inputs: list[Any]) -> Iterator[tuple[int, Any]]:
    """Every tensor of a model, and of the models in it, as it is computed, by its key."""
    graph = functional(model)
    values = {id(old): new for old, new in zip(graph.inputs, inputs, strict=True)}
    for node in nodes(model):
        if node.call.is_input:
            continue
        if is_graph(node.operation):
            given = [values[key] for key in node.inputs]
            inside = functional(node.operation)
            found = dict(_run(node.operation, given))
            found.update({id(t): new for t, new in zip(inside.inputs, given, strict=True)})
            yield from found.items()
            outputs = [found[id(tensor)] for tensor in inside.outputs]
        else:
            args, kwargs = node.call.arguments.fill_in(values)
            outputs = keras.tree.flatten(node.operation(*args, **kwargs))
        for key, output in zip(node.outputs, outputs, strict=True):
            values[key] = output
            yield key, output
    yield from ((id(old), new) for old, new in zip(graph.inputs, inputs, strict=True))
