"""Child process: a SavedModel -> .tflite files. Only this module runs the TensorFlow converter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from .read import describe, load_error

Json = dict[str, Any]


def job(request: Json) -> Json:
    """Convert the SavedModel to each precision asked for, up to the first that fails."""
    files: list[Json] = []
    progress = Path(request["progress"])
    for index, file in enumerate(request["files"]):
        progress.write_text(str(index), "utf-8")
        try:
            content = lower(request["saved_model"], file)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}", "index": index}
        path = Path(file["path"])
        path.write_bytes(content)
        files.append({**describe(content), "load_error": load_error(path)})
    return {"files": files}


def lower(saved_model: str, file: Json) -> bytes:
    """Run the converter once, with TFLite's builtin ops only."""
    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if file["precision"] != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if file["precision"] == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if file["precision"] == "int8":
        io = getattr(tf, file["io"])
        converter.inference_input_type = converter.inference_output_type = io
        if file["samples"]:
            converter.representative_dataset = _representative(**file["samples"])
    content: bytes = converter.convert()
    return content


def _representative(path: str, names: list[str], batch_size: int) -> Callable[[], Iterator[Json]]:
    with np.load(path) as file:
        arrays = {name: file[f"arr_{index}"] for index, name in enumerate(names)}

    def batches() -> Iterator[Json]:
        for start in range(0, len(arrays[names[0]]), batch_size):
            yield {name: array[start : start + batch_size] for name, array in arrays.items()}

    return batches
