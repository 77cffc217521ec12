"""The quantizer of the TensorFlow converter, without the rest of TensorFlow. In child processes.

It is a function in one shared library. Importing `tensorflow` for it takes seconds.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

_LIBRARY = Path("compiler", "mlir", "lite", "python", "_pywrap_converter_api.so")

# Numbers of `toco.IODataType`, which the function takes.
_TYPES = {"float32": 1, "uint8": 17, "int8": 18}
_QUANTIZED_INT8 = 9

_MISSING = "Quantizing a file needs TensorFlow: pip install 'tfcompress[tensorflow]'"


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
    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError(_MISSING)
    name = "tensorflow.lite.python.optimize._pywrap_tensorflow_lite_calibration_wrapper"
    wrapper = importlib.import_module(name).CalibrationWrapper(content, [], [])
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
    """Return the function: of TensorFlow, where that is imported already, or of its library."""
    found = importlib.util.find_spec("tensorflow")
    if found is None or not found.submodule_search_locations:
        raise ImportError(_MISSING)
    library = Path(found.submodule_search_locations[0]) / _LIBRARY
    spec = importlib.util.spec_from_file_location("_pywrap_converter_api", library)
    if "tensorflow" not in sys.modules and spec is not None and spec.loader is not None:
        try:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module.ExperimentalMlirQuantizeModel  # type: ignore[no-any-return]
        except ImportError:  # the library lies elsewhere in this release
            pass
    module = importlib.import_module("tensorflow.compiler.mlir.lite.python.wrap_converter")
    return module.wrapped_experimental_mlir_quantize  # type: ignore[no-any-return]
