"""The TensorFlow converter, which restores a SavedModel twice, without that. In child processes.

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

SERVING = ("serving_default",)
"""The signature that `export` writes."""

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


def from_saved_model(folder: str, signatures: Sequence[str] = SERVING) -> Any:
    """Return a converter, as `tf.lite.TFLiteConverter.from_saved_model` does.

    Args:
        folder: A SavedModel without debug information.
        signatures: Names of the signatures to convert. Defaults to the one that `export` writes.

    Returns:
        The converter.
    """
    if not _QUICK:
        return tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(signatures))
    _Base._set_original_model_type(metadata.ModelType.TF_SAVED_MODEL)
    return _Converter(folder, {tf.saved_model.SERVING}, list(signatures))


def convert(converter: Any) -> bytes:
    """Return the .tflite file of a converter, as its own method `convert` does.

    Args:
        converter: A converter of `from_saved_model`.

    Returns:
        The file.
    """
    content: bytes = converter._convert_and_export_metrics(_once) if _QUICK else converter.convert()
    return content


def _once(converter: Any) -> Any:
    tags = converter._saved_model_tags
    graph, _, _ = converter._load_saved_model(converter.saved_model_dir, tags)
    return converter._convert_from_saved_model(graph)
