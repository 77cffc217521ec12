"""A float file and samples -> an int8 file. Runs in child processes, without TensorFlow."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .calibrated import calibrate, finish
from .quantizer import quantize

Json = dict[str, Any]
Array = np.ndarray[Any, np.dtype[Any]]


class Quantized(NamedTuple):
    """An int8 file.

    Attributes:
        content: The file.
        kept_float: Names of the ops that int8 would have ruined.
    """

    content: bytes
    kept_float: list[str]


def post_training(content: bytes, options: Json, samples: Json) -> Quantized | None:
    """Quantize a float file.

    Args:
        content: The float file.
        options: The fields of `ConverterOptions`.
        samples: The .npz file of calibration samples ("path"), the input name of each of its
            arrays ("names") and the rows to a batch ("batch_size").

    Returns:
        The int8 file; None for a float file with loops or variables, whose tensors are out of reach
        of our calibration.

    Raises:
        NotFinite: A tensor becomes NaN.
    """
    types = options["input_type"] or "float32", options["output_type"] or "float32"
    calibrated = calibrate(
        content,
        load(samples),
        samples["batch_size"],
        ranges=options["ranges"],
        bias_correction=options["bias_correction"],
        float_inputs=types[0] == "float32",
    )
    if calibrated is None:
        return None
    kept = calibrated.kept_float
    quantized = quantize(calibrated.content, *types, kept, options["per_channel_dense"])
    return Quantized(finish(quantized), kept)


def load(samples: Json) -> dict[str, Array]:
    """Return the arrays of a file of samples, by input name."""
    with np.load(samples["path"]) as file:
        return {name: file[f"arr_{index}"] for index, name in enumerate(samples["names"])}
