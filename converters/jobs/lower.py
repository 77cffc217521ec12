"""Child process: SavedModels -> .tflite files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .calibrated import finish, repair
from .converter import convert, whole
from .fine_tables import with_fine_tables
from .kernel_rounding import KernelsRefused, quantize_in_4_bits, store_trained
from .post_training import WIDE, Lowered, post_training
from .quantizer import quantize
from .read import describe, load_error
from .tensor_values import Samples, load

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
        samples = file["samples"] and load(file["samples"])
        try:
            lowered = lower(file["saved_model"], file["options"], samples, file["kernels"], made)
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


def lower(
    saved_model: str,
    options: Json,
    samples: Samples | None,
    kernels: Json | None,
    made: dict[str, bytes],
) -> Lowered:
    """Make one file.

    Args:
        saved_model: Folder of the SavedModel.
        options: The fields of `ConverterOptions`.
        samples: Calibration samples; None for none.
        kernels: The fields of `KernelRequest`; None for kernels of 8 bits, or float ones.
        made: What the converter made before, by SavedModel and options. It is added to.

    Returns:
        The .tflite file.

    Raises:
        KernelsRefused: There is no file as `kernels` asks for.
    """
    if samples is None:
        content = _once(saved_model, options, made)
        if kernels is None and _is_dynamic(options):
            content = with_fine_tables(content, lambda: _once(saved_model, _FLOAT, made))
        if kernels is None:
            return Lowered(content)
        small, rounded = store_trained(content, kernels)
        return Lowered(small, kept_weights=rounded.kept)
    builtin = options["supported_ops"] in (_FLOAT["supported_ops"], [WIDE])
    if not builtin or options["supported_types"]:
        return Lowered(convert(saved_model, options, samples))
    content = _once(saved_model, _FLOAT, made)
    found = post_training(content, options, samples, kernels)
    return found or _by_the_converter(saved_model, options, samples, kernels)


def _is_dynamic(options: Json) -> bool:
    """Return whether weights become int8 and activations stay float."""
    types = options["supported_types"], options["input_type"], options["output_type"]
    return bool(options["optimizations"]) and not any(types)


def _once(saved_model: str, options: Json, made: dict[str, bytes]) -> bytes:
    """Return what the converter makes without samples: one float file serves many precisions."""
    key = str((saved_model, {name: options[name] for name in _FLOAT}))
    if key not in made:
        content = convert(saved_model, options)
        integers = options["optimizations"] and not options["supported_types"]
        made[key] = finish(content) if integers else content
    return made[key]


def _by_the_converter(
    saved_model: str, options: Json, samples: Samples, kernels: Json | None
) -> Lowered:
    """Let the converter measure the ranges, which alone sees the tensors of loops."""
    if options["supported_ops"] == [WIDE]:
        return Lowered(convert(saved_model, options, samples))
    measured = whole().measure(saved_model, options, samples)
    types = options["input_type"] or "float32", options["output_type"] or "float32"
    content, kept, _ = repair(measured, samples, float_inputs=types[0] == "float32")

    def integers(ranged: bytes) -> bytes:
        return finish(quantize(ranged, *types, kept, options["per_channel_dense"]))

    if kernels is None:
        return Lowered(integers(content), kept)
    small, rounded = quantize_in_4_bits(content, samples, kernels, integers)
    return Lowered(small, kept, rounded.kept)
