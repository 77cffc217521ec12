"""The outputs of a Keras model on samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfcompress.model.samples import Array, whole_batches
from tfcompress.model.signature import Signature

BATCH = 64
"""Enough to keep a CPU busy; few enough for the activations of a large model to fit in memory."""


def keras_outputs(call: Signature, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the outputs of a model in inference mode; its state stays as it is.

    Args:
        call: The inputs of the model, and how to call it.
        arrays: Samples by input name.

    Returns:
        Arrays by output name, of as many rows.
    """
    count = len(next(iter(arrays.values())))
    # A model with a fixed batch runs whole batches only.
    batch = call.inputs[0].shape[0] or BATCH
    filled = whole_batches(arrays, call.inputs[0].shape[0] or 1)
    parts: dict[str, list[Array]] = {}
    for start in range(0, len(next(iter(filled.values()))), batch):
        rows = {
            name: keras.ops.convert_to_tensor(array[start : start + batch])
            for name, array in filled.items()
        }
        with keras.StatelessScope():
            outputs = call.call(rows)
        for name, value in outputs.items():
            parts.setdefault(name, []).append(_to_numpy(value))
    return {name: np.concatenate(list_)[:count] for name, list_ in parts.items()}


def _to_numpy(value: Any) -> Array:
    if keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype)):
        value = keras.ops.cast(value, "float32")
    return np.asarray(keras.ops.convert_to_numpy(value))
