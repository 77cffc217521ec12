"""The TensorFlow converter, for which this module alone imports TensorFlow. In child processes.

`from_saved_model` restores all variables and functions to learn the name of the signature, and
`convert` restores them again to see whether debug information was saved with them, which `export`
never does. What converts reads the folder by itself. To skip the two takes private methods of the
converter: where a release of TensorFlow lacks one, it does all of its work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow.lite.python import conversion_metadata_schema_py_generated as metadata
from tensorflow.lite.python import lite

from .converter import SERVING
from .tensor_values import Samples

Json = dict[str, Any]

_PRIVATE = (
    "_convert_and_export_metrics",
    "_convert_from_saved_model",
    "_load_saved_model",
)
_Converter: Any = getattr(lite, "TFLiteSavedModelConverterV2", None)
_Base: Any = getattr(lite, "TFLiteConverterBase", None)
_QUICK = hasattr(_Base, "_set_original_model_type") and all(
    hasattr(_Converter, name) for name in _PRIVATE
)


def convert(
    saved_model: str, options: Json, samples: Samples | None, signatures: Sequence[str] = SERVING
) -> bytes:
    """Return the .tflite file of a SavedModel, as TensorFlow's own method does.

    Args:
        saved_model: The folder.
        options: The fields of `ConverterOptions`.
        samples: Calibration samples; None for none.
        signatures: Signatures to convert. Defaults to the one that `export` writes.

    Returns:
        The file.
    """
    return _run(_configured(saved_model, options, samples, signatures))


def measure(saved_model: str, options: Json, samples: Samples) -> bytes:
    """Return the float file with the ranges of its tensors on samples, those in loops too.

    Args:
        saved_model: The folder.
        options: The fields of `ConverterOptions`.
        samples: Calibration samples.

    Returns:
        The file.
    """
    converter = _configured(saved_model, options, samples, SERVING)
    converter._experimental_calibrate_only = True
    return _run(converter)


def _configured(
    saved_model: str, options: Json, samples: Samples | None, signatures: Sequence[str]
) -> Any:
    """Return the TensorFlow converter of a SavedModel, with the options of a precision."""
    converter = _from_saved_model(saved_model, signatures)
    target = converter.target_spec
    converter.optimizations = [getattr(tf.lite.Optimize, o) for o in options["optimizations"]]
    target.supported_ops = [getattr(tf.lite.OpsSet, name) for name in options["supported_ops"]]
    target.supported_types = [tf.as_dtype(name) for name in options["supported_types"]]
    # No public option exists. Op versions for one scale to each unit came with TensorFlow 2.17.
    converter._experimental_disable_per_channel_quantization_for_dense_layers = not options[
        "per_channel_dense"
    ]
    if options["input_type"]:
        converter.inference_input_type = tf.as_dtype(options["input_type"])
    if options["output_type"]:
        converter.inference_output_type = tf.as_dtype(options["output_type"])
    converter.representative_dataset = samples.batches if samples else None
    return converter


def _from_saved_model(folder: str, signatures: Sequence[str]) -> Any:
    """Return a converter, as `tf.lite.TFLiteConverter.from_saved_model` does."""
    if not _QUICK:
        return tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(signatures))
    _Base._set_original_model_type(metadata.ModelType.TF_SAVED_MODEL)
    return _Converter(folder, {tf.saved_model.SERVING}, list(signatures))


def _run(converter: Any) -> bytes:
    """Return the .tflite file of a converter, as its own method `convert` does."""
    content: bytes = converter._convert_and_export_metrics(_once) if _QUICK else converter.convert()
    return content


def _once(converter: Any) -> Any:
    tags = converter._saved_model_tags
    graph, _, _ = converter._load_saved_model(converter.saved_model_dir, tags)
    return converter._convert_from_saved_model(graph)
