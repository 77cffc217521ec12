"""The outputs of a model and of its .tflite file on the same samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfcompress.converters.file.model import Inspection
from tfcompress.edge.arrays import load_arrays, save_arrays
from tfcompress.edge.system.child import ChildFailure
from tfcompress.edge.targets.local import LOCAL
from tfcompress.model.samples import Array, whole_batches
from tfcompress.model.signature import Signature

from .errors import ConversionError

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


def file_outputs(
    path: Path, call: Signature, samples: Mapping[str, Array], timeout: float | None
) -> dict[str, Array]:
    """Run a file in a child process.

    Args:
        path: The file.
        call: The inputs of the model.
        samples: Arrays by input name.
        timeout: Seconds to wait; None for no limit.

    Returns:
        The outputs by name; none if it took too long.

    Raises:
        ConversionError: The runtime fails on the file.
    """
    count = len(next(iter(samples.values())))
    filled = whole_batches(samples, call.inputs[0].shape[0] or 1)
    inputs, out = path.with_suffix(".inputs.npz"), path.with_suffix(".outputs.npz")
    save_arrays(inputs, list(filled.values()))
    with LOCAL.session([path]) as session:
        try:
            reply = session.child.request(
                "outputs",
                timeout,
                path=session.paths[0],
                inputs=str(inputs),
                names=list(filled),
                out=str(out),
            )
        except ChildFailure as failure:
            if failure.status == "timeout":
                return {}
            raise ConversionError(
                f"The runtime loads the file, but fails on samples: {failure.reason}. Try "
                "batch_size=1, other samples or another precision."
            ) from failure
    found = zip(reply["names"], load_arrays(out), strict=True)
    return {name: array[:count] for name, array in found}


def output_scales(found: Inspection) -> dict[str, float]:
    """Return the step of every quantized output, also of one that the file dequantizes."""
    producers = {node.outputs[0]: node for node in found.nodes if node.op == "DEQUANTIZE"}
    scales = {}
    for name, place in found.signatures[0].outputs.items() if found.signatures else ():
        tensor = found.tensors[place]
        if place in producers:
            tensor = found.tensors[producers[place].inputs[0]]
        if len(tensor.scales) == 1:
            scales[name] = tensor.scales[0]
    return scales
