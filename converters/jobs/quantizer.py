"""The quantizer of the TensorFlow converter, without the rest of TensorFlow. In child processes.

It is a function in one shared library. Importing `tensorflow` for it takes seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from .tensorflow_parts import part

# Numbers of `toco.IODataType`, which the function takes.
_TYPES = {"float32": 1, "uint8": 17, "int8": 18}
_QUANTIZED_INT8 = 9


def quantize(
    content: bytes,
    input_type: str = "float32",
    output_type: str = "float32",
    kept_float: Collection[str] = (),
    per_channel_dense: bool = True,
    bits: int = 8,
) -> bytes:
    """Quantize a float file by the ranges that are stored in it: weights are int8.

    Args:
        content: A float file with a range for each computed tensor.
        input_type: Type of the float inputs in the new file: "float32", "int8" or
            "uint8"; "int16" with activations of 16 bits.
        output_type: Type of the float outputs in the new file.
        kept_float: Names of tensors whose ops stay in float.
        per_channel_dense: Whether each unit of a dense kernel may get a scale of its own.
        bits: Bits of the activations, 8 or 16. Defaults to 8.

    Returns:
        The file. Its op codes and buffers may repeat each other.
    """
    if bits == 16:
        return _wide(content, input_type, output_type, per_channel_dense)
    quantized: bytes = _function()(
        content,
        False,  # no scale for a whole kernel only
        False,  # types of inputs and outputs are given
        _QUANTIZED_INT8,
        _TYPES[input_type],
        _TYPES[output_type],
        False,  # no ops that compare with float
        False,
        None,
        set(kept_float),
        False,  # variables stay float
        not per_channel_dense,
        "",
    )
    return quantized


def _wide(content: bytes, input_type: str, output_type: str, per_channel_dense: bool) -> bytes:
    """Quantize with another function of TensorFlow, which alone has activations of 16 bits."""
    name = "tensorflow.lite.python.optimize._pywrap_tensorflow_lite_calibration_wrapper"
    wrapper = part(name).CalibrationWrapper(content, [], [])
    try:
        quantized: bytes = wrapper.QuantizeModel(
            np.dtype(input_type).num,
            np.dtype(output_type).num,
            False,  # no ops in float
            np.dtype(np.int16).num,
            np.dtype(np.int64).num,  # biases
            False,
            not per_channel_dense,
        )
    except RuntimeError as error:
        # A line for each op, however often the file has it.
        ops = dict.fromkeys(re.findall(r"not yet supported for op: '(\w+)'", str(error)))
        if not ops:
            raise
        raise RuntimeError(f"TFLite has no activations of 16 bits for {', '.join(ops)}") from error
    return quantized


def _function() -> Callable[..., Any]:
    """Return the function that quantizes."""
    library = part("tensorflow.compiler.mlir.lite.python._pywrap_converter_api")
    return library.ExperimentalMlirQuantizeModel  # type: ignore[no-any-return]
