"""Data as `fit` takes them, read for measuring: samples by input name, and targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcompress.edge.arguments import refuse
from tfcompress.model.samples import Array, InputSpec, load_samples

__all__ = ["Examples", "check_data", "examples"]

_WANTED = (
    "(x, y): arrays, or dicts of arrays, with the samples first; a tf.data.Dataset or a "
    "keras.utils.PyDataset of such batches"
)


@dataclass(frozen=True)
class Examples:
    """Samples and their targets.

    Attributes:
        x: Arrays by input name.
        y: Targets: an array, or a dict or list of arrays.
    """

    x: dict[str, Array]
    y: Any

    def __len__(self) -> int:
        return len(next(iter(self.x.values())))

    def part(self, rows: Array) -> Examples:
        """Return the samples and targets at some rows."""
        return Examples(
            {name: array[rows] for name, array in self.x.items()},
            keras.tree.map_structure(lambda array: np.asarray(array)[rows], self.y),
        )

    def first(self) -> dict[str, Array]:
        """Return the first sample alone, by input name."""
        return {name: array[:1] for name, array in self.x.items()}


def check_data(name: str, data: object) -> None:
    """Raise if a value is no pair of inputs and targets, and no data set.

    Args:
        name: Name of the argument.
        data: What was given.

    Raises:
        TypeError: It is neither.
        ValueError: There are no samples.
    """
    if isinstance(data, tf.data.Dataset):
        if int(data.cardinality()) == tf.data.INFINITE_CARDINALITY:
            refuse(name, "a data set that ends: dataset.take(1000)", data)
        return
    if isinstance(data, keras.utils.PyDataset):
        return
    if not isinstance(data, tuple) or len(data) != 2:
        refuse(name, _WANTED, data, TypeError)
    for part in data:
        leaves = [np.asarray(leaf) for leaf in keras.tree.flatten(part)]
        if not leaves or any(a.dtype.kind not in "biuf" or not a.ndim for a in leaves):
            refuse(name, _WANTED, data, TypeError)
        if not all(len(array) for array in leaves):
            raise ValueError(f"`{name}` is empty: there is nothing to measure with.")
    counts = {len(leaf) for leaf in keras.tree.flatten(data)}
    if len(counts) > 1:
        raise ValueError(
            f"`{name}` must have as many targets as samples. Received: {sorted(counts)}"
        )


def examples(
    name: str, data: Any, inputs: Sequence[InputSpec], most: int | None = None
) -> Examples:
    """Return data as arrays by input name, with their targets.

    Args:
        name: Name of the argument, for errors.
        data: A pair `(x, y)`, or a data set of such batches.
        inputs: The model's inputs.
        most: Largest number of samples: evenly spaced ones of arrays, the first ones of a data set.
            Defaults to None, all.

    Returns:
        The examples.

    Raises:
        ValueError: There are none, or they do not fit the model.
    """
    pair = data if isinstance(data, tuple) else _gathered(name, data, most)
    x, y = pair
    count = len(keras.tree.flatten(x)[0])
    rows = np.arange(count)
    if most is not None and count > most:
        rows = np.linspace(0, count - 1, most).round().astype(int)
    if isinstance(x, list | tuple) and not isinstance(x, Mapping):
        x = list(x)
    x = keras.tree.map_structure(lambda array: np.asarray(array)[rows], x)
    y = keras.tree.map_structure(lambda array: np.asarray(array)[rows], y)
    return Examples(load_samples(x, inputs), y)


def _gathered(name: str, data: Any, most: int | None) -> tuple[Any, Any]:
    """Return the batches of a data set, joined."""
    batches, count = [], 0
    steps = range(data.num_batches or 0) if isinstance(data, keras.utils.PyDataset) else None
    for batch in data if steps is None else (data[step] for step in steps):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        if y is None:
            raise ValueError(f"`{name}` must give (x, y): its batches have no targets.")
        batches.append(keras.tree.map_structure(np.asarray, (x, y)))
        count += len(keras.tree.flatten(x)[0])
        if most is not None and count >= most:
            break
    if not count:
        raise ValueError(f"`{name}` is empty: there is nothing to measure with.")
    joined: tuple[Any, Any] = keras.tree.map_structure(
        lambda *arrays: np.concatenate(arrays), *batches
    )
    return joined
