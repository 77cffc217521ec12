"""A SavedModel -> a .tflite file, by the TensorFlow converter. In child processes.

What converts is a function in one shared library, which reads the folder by itself. Importing
`tensorflow`, to call it, takes as long as converting a net of ten million weights. So the function
is called without it, where TensorFlow's own Python adds nothing to what the function returns.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..passes.base import Refused
from ..passes.flatbuffer import pack, unpack
from .tensor_values import Samples
from .tensorflow_parts import part

Json = dict[str, Any]

SERVING = ("serving_default",)
"""The signature that `export` writes."""

_FLAGS = "tensorflow.compiler.mlir.lite"
_FUNCTIONS = "tensorflow.compiler.mlir.quantization.tensorflow.python.pywrap_function_lib"


def convert(
    saved_model: str,
    options: Json,
    samples: Samples | None = None,
    signatures: Sequence[str] = SERVING,
) -> bytes:
    """Return the .tflite file of a SavedModel.

    Args:
        saved_model: Folder of the SavedModel, without debug information.
        options: The fields of `ConverterOptions`.
        samples: Samples by which the converter chooses ranges; None for none.
        signatures: Signatures to convert. Defaults to the one that `export` writes.

    Returns:
        The file.

    Raises:
        Exception: The converter refuses the model.
    """
    if samples is None and _is_plain(options):
        try:
            return _by_the_library(saved_model, options, signatures)
        except Exception:
            # TensorFlow's Python tries another way, and says in more words what is wrong.
            pass
    content: bytes = whole().convert(saved_model, options, samples, signatures)
    return content


def _is_plain(options: Json) -> bool:
    """Return whether the converter's function does all that a precision asks for."""
    types = options["input_type"], options["output_type"]
    return (
        options["supported_ops"] == ["TFLITE_BUILTINS"]
        and not options["supported_types"]
        and all(name in (None, "float32") for name in types)
    )


def whole() -> Any:
    """Return the module that does it with all of TensorFlow."""
    return importlib.import_module(f"{__package__}.whole_converter")


def _by_the_library(saved_model: str, options: Json, signatures: Sequence[str]) -> bytes:
    """Call the converter's function with the settings that TensorFlow's Python gives it."""
    library = part(f"{_FLAGS}.python._pywrap_converter_api")
    part(_FUNCTIONS)  # the type of an argument of the function
    types = part(f"{_FLAGS}.types_pb2")
    kinds = part(f"{_FLAGS}.converter_flags_pb2")
    quantized = bool(options["optimizations"])
    trained = quantized and _is_trained(saved_model)
    flags = kinds.ConverterFlags(
        input_format=kinds.TENSORFLOW_GRAPHDEF,
        output_format=kinds.TFLITE,
        inference_type=types.QUANTIZED_INT8 if trained else types.FLOAT,
        inference_input_type=types.FLOAT,
        drop_control_dependency=True,
        post_training_quantize=quantized and not trained,
        enable_mlir_dynamic_range_quantizer=quantized and not trained,
        disable_per_channel_quantization_for_dense_layers=not options["per_channel_dense"],
        enable_composite_direct_lowering=True,
        canonicalizing_inf_as_min_max_float=True,
    )
    model = part(f"{_FLAGS}.model_flags_pb2").ModelFlags(
        saved_model_dir=saved_model,
        saved_model_version=1,
        saved_model_tags=["serve"],
        saved_model_exported_names=signatures,
    )
    content: bytes = library.Convert(
        model.SerializeToString(), flags.SerializeToString(), None, False, None
    )
    return _stored_once(content)


def _is_trained(saved_model: str) -> bool:
    """Return whether a graph has ranges of its own, from quantization-aware training."""
    return b"FakeQuantWithMinMax" in Path(saved_model, "saved_model.pb").read_bytes()


def _stored_once(content: bytes) -> bytes:
    """Store equal constants once."""
    try:
        return pack(unpack(content))
    except Refused:
        return content
