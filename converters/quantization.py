"""`quantize`: a float .tflite file and a precision -> a checked .tflite file."""

from __future__ import annotations

import functools
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tfcompress.converters.file.model import Inspection
from tfcompress.converters.file.names import layer_in
from tfcompress.converters.file.read import inspect
from tfcompress.converters.passes.base import Pass
from tfcompress.converters.precisions.base import ConverterOptions, Precision
from tfcompress.converters.precisions.registry import check_precision
from tfcompress.edge.arguments import check_bool, check_seconds
from tfcompress.edge.ops import MAC_OPS
from tfcompress.edge.system.files import write_whole
from tfcompress.edge.system.scratch import raise_if_full, scratch_folder
from tfcompress.model.samples import Array, InputSpec, load_samples, whole_batches

from .checks import check_output, checked
from .converted import Converted
from .errors import ConversionError
from .file_outputs import file_runner
from .finishing import Finished, Lowered, finish
from .hybrid import slow_note
from .integer_samples import unscaled_integers
from .judgement import SAMPLES, judge
from .rewriting import ask
from .runtimes import parse_release

_REMEDY = (
    "give more samples like those that the file will see, or try another choice of `ranges`, "
    "bias_correction=True, Int16x8() or WeightOnly(). With the Keras model there is more: see "
    "`convert`"
)
_MOVES = ("PAD", "PADV2", "RESHAPE", "TRANSPOSE", "EXPAND_DIMS", "SQUEEZE")


def quantize(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    precision: Precision | str,
    *,
    strict: bool = False,
    samples: Any = None,
    runtime: str | None = None,
    timeout: float | None = 1800.0,
) -> Converted:
    """Write a float .tflite file in integers, without the Keras model that it was made from.

    Ranges, biases and kernels are chosen as `convert` does, from samples for the inputs of the
    file. The result is compared with the float file on some of the samples, each channel by itself;
    you are warned of an output that lost a tenth of its variation or more. The file is written
    whole or not at all. The work is done in child processes, and TensorFlow is not imported here:
    `Int8` and `Int4Weights` need one library of it, `Int16x8` needs TensorFlow, `WeightOnly`
    neither. Weights in float16 are taken as float32.

    >>> import keras, numpy as np, tempfile
    >>> from tfcompress import converters
    >>> model = keras.Sequential([keras.Input((64,), name="x"), keras.layers.Dense(64)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     wide = converters.convert(model, f"{folder}/float.tflite")
    ...     samples = np.random.default_rng(0).normal(size=(64, 64))
    ...     file = converters.quantize(wide, f"{folder}/int8.tflite", converters.Int8(samples))
    ...     file.bytes < wide.bytes / 2, file.outputs[0].snr_db > 30
    (True, True)

    Args:
        path: A float32 .tflite file, or one with weights in float16.
        out: The file to write. It ends in ".tflite", and its folder exists; it may be `path`.
        precision: `Int8(calibration=...)`, `Int4Weights(calibration=...)`,
            `Int16x8(calibration=...)`, `WeightOnly()`, or `Float16()`; or a name such as "int8",
            whose calibration samples are `samples`. Samples have the names of the file's inputs, as
            `inspect` shows them.
        strict: Whether to raise if an output is far from the float file's, or if, for an integer
            precision such as `Int8`, a multiplying op stayed in float or a QUANTIZE or DEQUANTIZE
            op is left inside the graph. Defaults to False: you are warned of the outputs, and
            `Converted` lists the ops.
        samples: Samples to judge the file by; 32 are enough. Defaults to None, the calibration
            samples of the precision, if it has any.
        runtime: Release of the oldest runtime that must load the file, such as "2.14". Defaults to
            None: you are warned if release 2.14 would refuse the file.
        timeout: Seconds for each child process; None for no limit. Defaults to 1800.

    Returns:
        The file, and which ops in it did not become integers.

    Raises:
        TypeError: `precision` is no `Precision`, or an argument has the wrong type.
        ValueError: The path `out` or the samples cannot be used.
        PermissionError: The folder of `out` may not be written in.
        ModelFileError: There is no readable .tflite file at `path`.
        ConversionError: The file is quantized already, or cannot be quantized so; the message says
            why.
        ImportError: TensorFlow is not installed, and the precision needs it.
    """
    target = check_output("out", out)
    precision = check_precision(precision, samples)
    check_bool("strict", strict)
    release = None if runtime is None else parse_release(runtime)
    if timeout is not None:
        check_seconds("timeout", timeout)
    if release is not None:
        precision = precision.for_runtime(release)
    found = inspect(path, timeout)
    _check_takes(precision)
    _check_float(found)
    data = precision.calibration_data()
    inputs = _inputs(found) if data is not None or samples is not None else ()
    calibration = None if data is None else load_samples(data[0], inputs, max_samples=data[1])
    judged_by = calibration
    if samples is not None and (data is None or data[0] is not samples):
        judged_by = load_samples(samples, inputs, max_samples=SAMPLES)
    batch = inputs[0].shape[0] if inputs else None
    label = f"file '{found.path.name}'"
    with scratch_folder() as folder:
        source = Path(shutil.copy(found.path, folder / "float.tflite"))
        lowered = _lower(found, source, precision, calibration, batch or 1, timeout)
        weights = precision.weights()
        step = Pass("weight_only", {"default": weights, "layers": {}, "tree": {}})
        passes = (*precision.passes(), *(() if weights is None else (step,)))
        [new] = finish({target: lowered}, [passes], None, release, timeout)
        new = new._replace(kept_weights=_by_layer(new.kept_weights))
        _check_smaller(found, precision, new)
        with file_runner(batch, timeout) as run_file:
            right = functools.partial(run_file, source)
            [result] = judge(right, run_file, [judged_by], [new.dense], _REMEDY)
        converted = checked(label, layer_in, target, precision, new, result, strict)
        write_whole({target: new.content})
    said = [] if data is None else _unscaled(found, inputs, data[0], calibration or {})
    said += [new.note] if new.note else []
    said += [f"{target.name}: {fault}" for fault in result.faults]
    for text in (*said, *slow_note(new.dense, target.name)):
        warnings.warn(text, stacklevel=2)
    return converted


def _check_takes(precision: Precision) -> None:
    """Check that a precision can be made of a file, without the model."""
    name, kernels = type(precision).__name__, precision.kernels()
    options = precision.converter_options()
    if precision.equalizes():
        raise ConversionError(
            f"{name}(equalize=True) moves scales between the layers of a Keras model, and a file "
            "has none. Leave `equalize` out, or use `convert`."
        )
    if kernels is not None and kernels.keep is not None:
        raise ConversionError(
            f"{name}(keep=...) selects layers of a Keras model, and a file has none. Use "
            'keep="auto", keep=None or a budget.'
        )
    if precision.calibration_data() is not None and not options.supported_types:
        return
    if precision.needs_ranges:
        raise ConversionError(
            f"{name} needs samples to measure the ranges of the activations: "
            f"{name}(calibration=samples), about 64 to 500 of them from the training data."
        )
    if options != ConverterOptions() or not (precision.weights() or precision.passes()):
        raise ConversionError(
            f"A {precision.name} file is made from a Keras model, by `convert`. A file becomes "
            "Int8(calibration=...), Int4Weights(calibration=...), Int16x8(calibration=...), "
            "WeightOnly() or Float16()."
        )


def _check_float(found: Inspection) -> None:
    """Check that a file is one of float32, or float16, and dense."""
    name = found.path.name
    quantized = next((t for t in found.tensors if t.quantized and t.dtype != "float32"), None)
    if quantized is not None:
        raise ConversionError(
            f"'{name}' is quantized already: its tensor '{quantized.name}' is {quantized.dtype}. "
            "Give the float32 file that it was made from."
        )
    if "DENSIFY" in found.ops:
        raise ConversionError(
            f"'{name}' stores weights sparse. Give the dense float32 file, and use `sparsify` on "
            "the result."
        )


def _places(found: Inspection) -> dict[str, int]:
    """Return the tensors of the inputs by name: that of the tensor, without a signature."""
    if found.signatures:
        return found.signatures[0].inputs
    return {found.tensors[place].name: place for place in found.subgraphs[0].inputs}


def _check_smaller(found: Inspection, precision: Precision, new: Finished) -> None:
    """Check that a file for the sake of its size alone is smaller than the one before."""
    if precision.integer or new.dense.bytes < found.bytes:
        return
    kept, reasons = len(new.kept_weights), dict.fromkeys(new.kept_weights.values())
    why = f" {kept} kernel(s) would stay float32: {'; '.join(reasons)}." if kept else ""
    raise ConversionError(
        f"{precision.name} would not make '{found.path.name}' smaller: {found.bytes:,} -> "
        f"{new.dense.bytes:,} bytes.{why}"
    )


def _inputs(found: Inspection) -> tuple[InputSpec, ...]:
    """Return the inputs of a file, each with the batch first."""
    places = _places(found)
    inputs = tuple(
        InputSpec(name, found.tensors[place].shape, found.tensors[place].dtype)
        for name, place in places.items()
    )
    shapes = ", ".join(f"'{spec.name}' {spec.shape}" for spec in inputs)
    if len(places) < len(found.subgraphs[0].inputs) or not inputs:
        raise ConversionError(
            f"'{found.path.name}' has no inputs, or two of one name, so that samples cannot be "
            f"given to it: {shapes or 'none'}."
        )
    batches = {spec.shape[0] if len(spec.shape) > 1 else -1 for spec in inputs}
    if len(batches) > 1 or -1 in batches:
        raise ConversionError(
            f"The inputs of '{found.path.name}' do not all begin with one batch axis: {shapes}. "
            "Samples are rows of a batch, so that only WeightOnly() and Float16() take such a file."
        )
    return inputs


def _lower(
    found: Inspection,
    source: Path,
    precision: Precision,
    samples: Mapping[str, Array] | None,
    batch: int,
    timeout: float | None,
) -> Lowered:
    """Make the integer file, or a float file that is ready for passes over its weights."""
    folder, out = source.parent, source.with_name("made.tflite")
    kernels = precision.kernels()
    request: dict[str, Any] = {
        "path": str(source),
        "out": str(out),
        "options": precision.converter_options().to_dict(),
        "samples": None,
        "kernels": kernels and {**asdict(kernels), "keep": [], "only": None, "tree": {}},
    }
    given = None
    if samples is not None:
        file = folder / "samples.npz"
        np.savez(file, *whole_batches(samples, batch).values())
        given = {"path": str(file), "names": list(samples), "batch_size": batch}
        request["samples"] = None if precision.weights() else given
    start = f"'{found.path.name}' cannot be quantized to {precision.name}"
    reply = ask("jobs.quantize_file", request, folder, timeout, start)
    if "missing" in reply:
        raise ImportError(f"{start}: {reply['missing']}")
    if "refused" in reply or "error" in reply:
        raise_if_full(reply.get("error", ""))
        raise ConversionError(f"{start}: {reply.get('refused') or reply['error']}.")
    made = Inspection.from_description(out, reply["file"])
    if made.load_error:
        raise ConversionError(f"{start}: the runtime does not load the result: {made.load_error}")
    kept = tuple(dict.fromkeys(layer_in(name) or name for name in reply["kept_float"]))
    return Lowered(made, kept, reply["kept_weights"], given)


def _by_layer(kept: Mapping[str, str]) -> dict[str, str]:
    """Return what was said of kernels by the layers that their names contain."""
    return {layer_in(name) or name: why for name, why in kept.items()}


def _unscaled(
    found: Inspection, inputs: tuple[InputSpec, ...], data: Any, arrays: Mapping[str, Array]
) -> list[str]:
    """Say which float inputs get integers although an op multiplies the values as they are."""
    names = {place: name for name, place in _places(found).items()}
    readers: dict[str, str] = {}
    for node in found.nodes:
        name = names.get(node.inputs[0]) if node.inputs else None
        if name is not None and node.op in _MOVES:
            names[node.outputs[0]] = name
        elif name is not None and node.op in MAC_OPS:
            inside = found.tensors[node.outputs[0]].name
            readers.setdefault(name, layer_in(inside) or inside)
    return unscaled_integers(readers, inputs, data, arrays)
