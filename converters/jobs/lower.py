"""Child process: SavedModels -> .tflite files. Only this module runs the TensorFlow converter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from .calibrated import finish, repair
from .post_training import Quantized, load, post_training
from .quantizer import quantize
from .read import describe, load_error

Json = dict[str, Any]

_FLOAT: Json = {
    "optimizations": [],
    "supported_ops": ["TFLITE_BUILTINS"],
    "supported_types": [],
    "input_type": None,
    "output_type": None,
    "per_channel_dense": True,
}


def job(request: Json) -> Json:
    """Convert a SavedModel to each file of the request, up to the first that fails."""
    files: list[Json] = []
    made: dict[str, bytes] = {}
    progress = Path(request["progress"])
    for index, file in enumerate(request["files"]):
        progress.write_text(str(index), "utf-8")
        try:
            found = lower(file["saved_model"], file["options"], file["samples"], made)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}", "index": index}
        path = Path(file["path"])
        path.write_bytes(found.content)
        about = {**describe(found.content), "load_error": load_error(path)}
        files.append({"file": about, "kept_float": found.kept_float})
    return {"files": files}


def lower(
    saved_model: str, options: Json, samples: Json | None, made: dict[str, bytes]
) -> Quantized:
    """Make one file.

    Args:
        saved_model: Folder of the SavedModel.
        options: The fields of `ConverterOptions`.
        samples: The .npz file of calibration samples ("path"), the input name of each of its
            arrays ("names") and the rows to a batch ("batch_size"); None for no samples.
        made: What the converter made before, by SavedModel and options. It is added to.

    Returns:
        The .tflite file, and the names of the ops that int8 would have ruined.
    """
    plain = options["supported_ops"] == _FLOAT["supported_ops"] and not options["supported_types"]
    if samples is None:
        return Quantized(_once(saved_model, options, made), [])
    if not plain:
        return Quantized(_converter(saved_model, options, samples).convert(), [])
    content = _once(saved_model, _FLOAT, made)
    found = post_training(content, options, samples)
    return found or _by_the_converter(saved_model, options, samples)


def _once(saved_model: str, options: Json, made: dict[str, bytes]) -> bytes:
    """Return what the converter makes without samples: one float file serves many precisions."""
    key = str((saved_model, {name: options[name] for name in _FLOAT}))
    if key not in made:
        made[key] = _converter(saved_model, options, None).convert()
    return made[key]


def _by_the_converter(saved_model: str, options: Json, samples: Json) -> Quantized:
    """Let the converter measure the ranges, which alone sees the tensors of loops."""
    converter = _converter(saved_model, options, samples)
    converter._experimental_calibrate_only = True
    types = options["input_type"] or "float32", options["output_type"] or "float32"
    content, kept = repair(
        converter.convert(), _representative(samples), float_inputs=types[0] == "float32"
    )
    return Quantized(finish(quantize(content, *types, kept, options["per_channel_dense"])), kept)


def _converter(saved_model: str, options: Json, samples: Json | None) -> Any:
    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
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
    converter.representative_dataset = _representative(samples) if samples else None
    return converter


def _representative(samples: Json) -> Callable[[], Iterator[Json]]:
    arrays, size = load(samples), samples["batch_size"]

    def batches() -> Iterator[Json]:
        for start in range(0, len(arrays[samples["names"][0]]), size):
            yield {name: array[start : start + size] for name, array in arrays.items()}

    return batches
