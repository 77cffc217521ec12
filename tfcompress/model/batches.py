"""Batches of data for scoring channels, in the order of a model's inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from tfcompress.edge.arguments import refuse

from .graph import functional
from .keras_private import producer

__all__ = ["Batch", "batches", "check_data"]

Batch: TypeAlias = tuple[list[Any], Any, Any]
"""Inputs in the order of the model's, targets or None, and sample weights or None."""


def batches(model: keras.Model, x: Any, y: Any, batch_size: int) -> Iterator[Batch]:
    """Yield the batches of a data set or of arrays, in one pass.

    Args:
        model: A functional or sequential model.
        x: Inputs: an array, or a list or dictionary of arrays, with the samples first. Or a
            `tf.data.Dataset` or `keras.utils.PyDataset` that yields batches.
        y: Targets: an array, or a list or dictionary of arrays, with the samples first. None if
            there are none, or if `x` is a data set.
        batch_size: Samples in a batch; used for arrays only.

    Yields:
        A `Batch`.

    Raises:
        ValueError: There are no samples, the data set is endless, or the samples do not fit.
    """
    count = 0
    for batch in _dataset(x, y) if _is_dataset(x) else _slices(x, y, batch_size):
        inputs, targets, weights = keras.utils.unpack_x_y_sample_weight(batch)
        yield _in_order(model, inputs), targets, weights
        count += 1
    if not count:
        raise ValueError("An importance by data takes at least one batch. The data set is empty.")


def check_data(name: str, data: object) -> None:
    """Raise if a value is no data set and holds no arrays of numbers.

    >>> check_data("x", np.ones((8, 4)))

    Args:
        name: Name of the argument.
        data: What was given.

    Raises:
        TypeError: It is neither a data set nor an array, nor a list or dictionary of arrays.
        ValueError: There are no samples.
    """
    if _is_dataset(data):
        return
    wanted = (
        "an array of numbers with the samples first, at least one, a list or dictionary of such "
        "arrays, or a tf.data.Dataset of batches"
    )
    leaves = [np.asarray(leaf) for leaf in keras.tree.flatten(data)] if data is not None else []
    if not leaves or any(not leaf.ndim or leaf.dtype.kind not in "biuf" for leaf in leaves):
        refuse(name, wanted, data, TypeError)
    if not all(len(leaf) for leaf in leaves):
        refuse(name, wanted, data)


def _is_dataset(x: object) -> bool:
    return isinstance(x, tf.data.Dataset | keras.utils.PyDataset)


def _dataset(x: Any, y: Any) -> Iterator[Any]:
    if y is not None:
        raise ValueError("A data set gives its targets itself, as (x, y). Leave `y` out.")
    if isinstance(x, keras.utils.PyDataset):
        if x.num_batches is not None:
            return (x[i] for i in range(x.num_batches))
    elif int(x.cardinality()) != tf.data.INFINITE_CARDINALITY:
        return iter(x)
    raise ValueError(
        "An importance by data reads a data set to its end, and this one has none. Give it some "
        "batches: dataset.take(100)."
    )


def _slices(x: Any, y: Any, batch_size: int) -> Iterator[Any]:
    arrays = keras.tree.map_structure(np.asarray, (x,) if y is None else (x, y))
    counts = {array.shape[0] if array.ndim else 0 for array in keras.tree.flatten(arrays)}
    if len(counts) != 1 or 0 in counts or batch_size < 1:
        raise ValueError(
            "An importance by data takes arrays with as many samples each, at least one, and a "
            f"`batch_size` of at least 1; or a tf.data.Dataset. Received: {sorted(counts)} "
            f"samples, batch_size={batch_size!r}"
        )
    [count] = counts
    for start in range(0, count, batch_size):
        part = slice(start, start + batch_size)
        yield keras.tree.map_structure(lambda array: array[part], arrays)  # noqa: B023


def _in_order(model: keras.Model, x: Any) -> list[Any]:
    """Return inputs in the order of the model's; a dictionary is read by name."""
    graph = functional(model)
    names = [producer(tensor).name for tensor in graph.inputs]
    arrays = keras.tree.flatten(x)
    if isinstance(x, dict):
        structure = graph.input
        if set(names) <= set(x):
            arrays = [x[name] for name in names]
        elif isinstance(structure, dict) and set(structure) <= set(x):
            arrays = keras.tree.flatten({key: x[key] for key in structure})
    if len(arrays) == len(graph.inputs):
        # As in `fit`, inputs of one number may come without their last axis.
        arrays = [
            np.expand_dims(array, -1)
            if tensor.shape[-1:] == (1,) and np.ndim(array) == len(tensor.shape) - 1
            else array
            for array, tensor in zip(arrays, graph.inputs, strict=True)
        ]
    if [np.ndim(array) for array in arrays] != [len(tensor.shape) for tensor in graph.inputs]:
        wanted = ", ".join(
            f"{name} {tensor.shape}" for name, tensor in zip(names, graph.inputs, strict=True)
        )
        received = ", ".join(str(tuple(np.shape(array))) for array in arrays)
        raise ValueError(
            f"The data do not fit the inputs of {model.name!r}: {wanted}. Received: {received}. "
            "The samples come first; a tf.data.Dataset is one of batches: dataset.batch(32)."
        )
    return [
        tf.cast(array, tensor.dtype) for array, tensor in zip(arrays, graph.inputs, strict=True)
    ]
