"""Child process: a SavedModel -> .tflite files. Only this module runs the TensorFlow converter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert import deduplicate_readonly_buffers, mlir_quantize

from .calibrated import finish, repair
from .converter import convert, from_saved_model
from .kernel_rounding import KernelsRefused, quantize_in_4_bits, store_trained
from .read import describe, load_error

Json = dict[str, Any]


def job(request: Json) -> Json:
    """Convert the SavedModel to each file of the request, up to the first that fails."""
    files: list[Json] = []
    progress = Path(request["progress"])
    for index, file in enumerate(request["files"]):
        progress.write_text(str(index), "utf-8")
        try:
            lowered = lower(
                request["saved_model"], file["options"], file["samples"], file["kernels"]
            )
        except KernelsRefused as error:
            return {"refused": str(error), "index": index}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}", "index": index}
        path = Path(file["path"])
        path.write_bytes(lowered.content)
        about = {**describe(lowered.content), "load_error": load_error(path)}
        files.append(
            {
                "file": about,
                "kept_float": list(lowered.kept_float),
                "kept_weights": dict(lowered.kept_weights),
            }
        )
    return {"files": files}


class Lowered(NamedTuple):
    """A file of the converter.

    Attributes:
        content: The .tflite file.
        kept_float: The names of the ops that int8 would have ruined.
        kept_weights: Layer -> why its kernel has 8 bits in a file of 4 bits.
    """

    content: bytes
    kept_float: Sequence[str] = ()
    kept_weights: Mapping[str, str] = MappingProxyType({})


def lower(saved_model: str, options: Json, samples: Json | None, kernels: Json | None) -> Lowered:
    """Run the converter once.

    Args:
        saved_model: Folder of the SavedModel.
        options: The fields of `ConverterOptions`.
        samples: The .npz file of calibration samples ("path"), the input name of each of its
            arrays ("names") and the rows to a batch ("batch_size"); None for no samples.
        kernels: The fields of `KernelRequest`; None for kernels of 8 bits, or float ones.

    Returns:
        The .tflite file.

    Raises:
        KernelsRefused: There is no file as `kernels` asks for.
    """
    converter = from_saved_model(saved_model)
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
    batches = _representative(**samples) if samples else None
    converter.representative_dataset = batches
    plain = options["supported_ops"] == ["TFLITE_BUILTINS"] and not options["supported_types"]
    if batches is None or not plain:
        content = convert(converter)
        if plain and options["optimizations"]:
            content = finish(content)
        if kernels is None:
            return Lowered(content)
        small, rounded = store_trained(content, kernels)
        return Lowered(small, kept_weights=rounded.kept)
    # Measure, repair, quantize: what `convert` does, with our step in between.
    converter._experimental_calibrate_only = True
    types = (converter.inference_input_type, converter.inference_output_type)
    content, kept = repair(convert(converter), batches, float_inputs=types[0] == tf.float32)

    def quantize(measured: bytes) -> bytes:
        quantized = mlir_quantize(
            measured,
            input_data_type=types[0],
            output_data_type=types[1],
            denylisted_nodes=set(kept),
            disable_per_channel_for_dense_layers=not options["per_channel_dense"],
        )
        return finish(deduplicate_readonly_buffers(quantized))

    if kernels is None:
        return Lowered(quantize(content), kept)
    small, rounded = quantize_in_4_bits(content, batches, kernels, quantize)
    return Lowered(small, kept, rounded.kept)


def _representative(path: str, names: list[str], batch_size: int) -> Callable[[], Iterator[Json]]:
    with np.load(path) as file:
        arrays = {name: file[f"arr_{index}"] for index, name in enumerate(names)}

    def batches() -> Iterator[Json]:
        for start in range(0, len(arrays[names[0]]), batch_size):
            yield {name: array[start : start + batch_size] for name, array in arrays.items()}

    return batches
