"""Calibration samples that are integers, for inputs that are real numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfcompress.model.samples import Array, InputSpec


def unscaled_integers(
    readers: Mapping[str, str],
    inputs: Sequence[InputSpec],
    data: Any,
    arrays: Mapping[str, Array],
) -> list[str]:
    """Say which float inputs get integers that nothing scales.

    Args:
        readers: Input name -> the layer with weights that reads the values as they are.
        inputs: The inputs.
        data: The samples as they were given.
        arrays: The samples by input name, in the inputs' dtypes.

    Returns:
        A sentence for each such input.
    """
    dtypes = _dtypes(data, inputs)
    return [
        f"The samples for input '{spec.name}' are {dtypes[spec.name]}, with a range from "
        f"{arrays[spec.name].min():g} to {arrays[spec.name].max():g}. The input is {spec.dtype}, "
        f"and layer '{readers[spec.name]}' takes the values as they are. Scale the samples as in "
        f"training; if they are so already, pass them as {spec.dtype}."
        for spec in inputs
        if np.dtype(spec.dtype).kind == "f"
        and dtypes.get(spec.name, "")[:3] in ("uin", "int")
        and spec.name in readers
    ]


def _dtypes(data: Any, inputs: Sequence[InputSpec]) -> dict[str, str]:
    """Return the dtypes of samples by input name, where they can be told without reading them."""
    if hasattr(data, "element_spec"):
        data = data.element_spec
        data = data[0] if isinstance(data, tuple) else data
    if isinstance(data, Mapping):
        return {str(name): _dtype(value) for name, value in data.items()}
    values = data if isinstance(data, list | tuple) and len(data) == len(inputs) else [data]
    return {spec.name: _dtype(value) for spec, value in zip(inputs, values, strict=False)}


def _dtype(value: Any) -> str:
    dtype = getattr(value, "dtype", "")
    return str(getattr(dtype, "name", dtype))
