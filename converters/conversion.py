"""`convert`: a Keras model and a precision -> a checked .tflite file."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from tfcompress.converters.export.layer_names import layer_at
from tfcompress.converters.export.saved_model import save_model
from tfcompress.converters.export.unrolled import check_unrollable, unrolled, unrolled_note
from tfcompress.converters.precisions.base import Precision
from tfcompress.converters.precisions.float32 import Float32
from tfcompress.edge.arguments import check_bool, check_path, check_seconds
from tfcompress.edge.system.files import write_whole
from tfcompress.edge.system.scratch import scratch_folder

from .checks import check_ranges, checked
from .converted import Converted
from .equalization.for_files import by_model
from .file_outputs import file_runner
from .finishing import Lowered, finish
from .hybrid import slow_note
from .input_shapes import InputShapes
from .judgement import judge
from .kernel_choice import Exceptions, check_exceptions
from .lowering import lower
from .outputs import keras_outputs
from .preparation import PathLike, Prepared, check_files, prepare
from .runtimes import Release, parse_release
from .several_shapes import Made, check_several, join
from .sparse import Sparse, check_sparse


def convert(
    model: keras.Model,
    path: PathLike,
    precision: Precision | str = Float32(),  # noqa: B008 - frozen
    *,
    precisions: Exceptions | None = None,
    batch_size: int | None = None,
    input_shapes: InputShapes | Sequence[InputShapes] | None = None,
    strict: bool = False,
    sparse: bool | Sparse = False,
    samples: Any = None,
    runtime: str | None = None,
    timeout: float | None = 1800.0,
) -> Converted:
    """Write a Keras model as a .tflite file.

    Only TFLite's own ops are used, so that the file runs wherever TFLite does. The TensorFlow
    converter runs in a child process: if it crashes, you get an error. The file is written whole
    or not at all, after the runtime has loaded it once. Inputs are named as in Keras. Outputs are
    named after the layers that compute them, or by the keys of a dict. A character that is no
    letter, digit or underscore becomes an underscore.

    A file that has samples is judged by them: it runs in a child process, and its outputs are
    compared with the model's, each channel by itself. You are warned of an output that lost a tenth
    of its variation or more (`OutputError.channel_r2` below 0.9), with the likely cause.

    >>> import keras, tempfile
    >>> from tfcompress import converters
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = converters.convert(model, f"{folder}/half.tflite", converters.Float16())
    ...     4096 < file.bytes < 8192  # 2,048 weights of two bytes, and the graph
    True

    Args:
        model: A built `keras.Model`, which is not changed. A model in mixed precision is converted
            as float32.
        path: The file to write. It ends in ".tflite", and its folder exists.
        precision: `Float32()`, `Float16()`, `DynamicInt8()`, `Int8(calibration=...)` or a
            `Precision` of your own; or the name of one, such as "int8", whose options have their
            defaults and whose calibration samples are `samples`. Defaults to `Float32()`.
        precisions: Filters -> precision of the weights of the layers that they select, such as
            `{"head": "int8"}` in a file of `Int4Weights`: a regular expression searched in the
            layer's path, a tuple of layers or names, or a function of the layer. The first that
            selects a layer counts. `Int8` and `Int4Weights` mix, and `Float32` and `WeightOnly`.
            Defaults to None, one precision for all layers.
        batch_size: Samples per run. Defaults to None, a free batch, unless the `keras.Input` of a
            functional model fixes it. LSTM, GRU and other loops need a fixed batch. Around a
            Flatten layer, a free batch adds ops that compute shapes at run time, outside XNNPACK.
        input_shapes: Name of an input -> its shape in the file, batch first, where the model leaves
            sizes free: `{"token_ids": (1, 128)}`. None keeps a size as it is. A list of such dicts
            makes one file with a signature for each, such as "serving_32" and "serving_128", named
            by the sizes that differ; weights are stored once, and `edge.Runner(signature=)` picks.
            It takes precisions without samples. Defaults to None, the shapes of the model. A fixed
            length lets the converter fold what is computed from it.
        strict: Whether to raise if an output is far from the model's, or if, for an integer
            precision such as `Int8`, a multiplying op stayed in float or a QUANTIZE or DEQUANTIZE
            op is left inside the graph. Nothing is written then. Defaults to False: you are warned
            of the outputs, and `Converted` lists the ops.
        sparse: True, or a `Sparse` with options, to store zeros in the weights in fewer bytes, as
            `sparsify` does: for pruned models. Defaults to False.
        samples: Samples to judge the file by, in the forms that `verify` takes; 32 are enough.
            Defaults to None, the calibration samples of the precision, if it has any.
        runtime: Release of the oldest runtime that must load the file, such as "2.14", the last
            tflite-runtime. The precision then gets options that it reads, where there are any.
            Defaults to None: you are warned if release 2.14 would refuse the file.
        timeout: Seconds for each child process; None for no limit. Defaults to 1800.

    Returns:
        The file, and which ops in it did not become integers.

    Raises:
        TypeError: `model` is no Keras 3 model, or `precision` is no `Precision`.
        ValueError: The path, the batch size, a shape or the calibration samples cannot be used.
        PermissionError: The folder of `path` may not be written in.
        ConversionError: The model cannot be converted; the message names the op and its layer.
    """
    check_path("path", path)
    single = None if precisions is None else {path: precisions}
    return _convert(
        model,
        {path: precision},
        single,
        batch_size,
        input_shapes,
        strict,
        sparse,
        samples,
        runtime,
        timeout,
    )[0]


def convert_all(
    model: keras.Model,
    files: Mapping[PathLike, Precision | str],
    *,
    precisions: Mapping[PathLike, Exceptions] | None = None,
    batch_size: int | None = None,
    input_shapes: InputShapes | Sequence[InputShapes] | None = None,
    strict: bool = False,
    sparse: bool | Sparse = False,
    samples: Any = None,
    runtime: str | None = None,
    timeout: float | None = 1800.0,
) -> list[Converted]:
    """Write a Keras model in several precisions, which takes little longer than in one.

    The model is traced once. No file is put in place before all are converted and checked.

    >>> from tfcompress import converters
    >>> files = {"a.tflite": converters.Float32(), "b.tflite": converters.Float16()}
    >>> converters.convert_all("model.keras", files)
    Traceback (most recent call last):
    ...
    TypeError: Expected a keras.Model. Received: 'model.keras' of type str. If it is a file, ...

    Args:
        model: A built `keras.Model`, which is not changed. A model in mixed precision is converted
            as float32.
        files: Path of each file to write -> its precision, or the name of it.
        precisions: Path of a file -> the precisions of single layers in it, as `convert` takes
            them: `{"b.tflite": {"head": Int8()}}`. Defaults to None, one precision in each file.
        batch_size: Samples per run, for all files. Defaults to None, a free batch, unless the
            `keras.Input` of a functional model fixes it.
        input_shapes: Name of an input -> its shape in all files, batch first, where the model
            leaves sizes free: `{"token_ids": (1, 128)}`; or a list of such dicts, for a signature
            for each in each file. Defaults to None, the shapes of the model.
        strict: Whether to raise if an output is far from the model's, or if a file of an integer
            precision keeps float ops. Defaults to False: you are warned of the outputs, and
            `Converted` lists the ops.
        sparse: True, or a `Sparse` with options, to store zeros in the weights of all files in
            fewer bytes. Defaults to False.
        samples: Samples to judge the files by, in the forms that `verify` takes. Defaults to None,
            the calibration samples of each precision, if it has any.
        runtime: Release of the oldest runtime that must load the files, such as "2.14". Defaults
            to None: you are warned if release 2.14 would refuse one.
        timeout: Seconds for each child process; None for no limit. Defaults to 1800.

    Returns:
        The files, in the order given.

    Raises:
        TypeError: `model` is no Keras 3 model, or a precision is no `Precision`.
        ValueError: A path, the batch size or the calibration samples cannot be used.
        PermissionError: The folder of a path may not be written in.
        ConversionError: The model cannot be converted; the message names the op and its layer.
    """
    return _convert(
        model,
        files,
        precisions,
        batch_size,
        input_shapes,
        strict,
        sparse,
        samples,
        runtime,
        timeout,
    )


def _convert(
    model: keras.Model,
    files: Mapping[PathLike, Precision | str],
    exceptions: Mapping[PathLike, Exceptions] | None,
    batch_size: int | None,
    input_shapes: InputShapes | Sequence[InputShapes] | None,
    strict: bool,
    sparse: bool | Sparse,
    samples: Any,
    runtime: str | None,
    timeout: float | None,
) -> list[Converted]:
    release = None if runtime is None else parse_release(runtime)
    config = check_sparse(sparse)
    check_bool("strict", strict)
    if timeout is not None:
        check_seconds("timeout", timeout)
    precisions = check_files(files, config, samples)  # by path
    single = check_exceptions(precisions, exceptions)
    if release is not None:
        precisions = {path: p.for_runtime(release) for path, p in precisions.items()}

    def make(shapes: InputShapes | None) -> Made:
        return _make(
            model, precisions, single, batch_size, shapes, strict, config, samples, release, timeout
        )

    if input_shapes is None or isinstance(input_shapes, Mapping):
        made = make(input_shapes)
    else:
        keys = check_several(model, input_shapes, batch_size, precisions, config, samples)
        made = join([make(shapes) for shapes in input_shapes], keys, timeout)
    write_whole(made.content)
    for text in made.said:
        warnings.warn(text, stacklevel=3)  # the caller of `convert` or `convert_all`
    return made.converted


def _make(
    model: keras.Model,
    precisions: Mapping[Path, Precision],
    single: Mapping[Path, Mapping[Any, Precision]],
    batch_size: int | None,
    input_shapes: InputShapes | None,
    strict: bool,
    sparse: Sparse | None,
    samples: Any,
    release: Release | None,
    timeout: float | None,
) -> Made:
    """Make and check all files, and write none."""
    with scratch_folder() as folder:
        prepared = prepare(model, precisions, batch_size, samples, single, input_shapes)
        lowered, loops = _lower_all(prepared, precisions, folder, timeout)
        made = dict(zip(precisions, lowered, strict=True))
        rewritten = finish(made, prepared.passes, sparse, release, timeout)
        files_made = [new.dense for new in rewritten]
        run = functools.partial(keras_outputs, prepared.call)
        batch = prepared.call.inputs[0].shape[0]
        with file_runner(batch, timeout) as run_file:
            judged = judge(run, run_file, prepared.judged_by, files_made)
        label, layer_of = f"model '{model.name}'", functools.partial(layer_at, model)
        converted = [
            checked(label, layer_of, path, precision, new, result, strict)
            for (path, precision), new, result in zip(
                precisions.items(), rewritten, judged, strict=True
            )
        ]
    said = [*prepared.warnings, *loops, *(new.note for new in rewritten if new.note)]
    for path, new, result in zip(precisions, rewritten, judged, strict=True):
        said += [f"{path.name}: {fault}" for fault in result.faults]
        said += slow_note(new.dense, path.name)
    content = {path: new.content for path, new in zip(precisions, rewritten, strict=True)}
    return Made(converted, content, said)


def _lower_all(
    prepared: Prepared, precisions: Mapping[Path, Precision], folder: Path, timeout: float | None
) -> tuple[list[Lowered], list[str]]:
    """Make the file of each precision.

    The model is traced once, and once for what equalizes it.

    Returns:
        The files, and a note for each file whose loops are unrolled.
    """
    found: dict[Path, Lowered] = {}
    notes = []
    for number, (part, chosen) in enumerate(by_model(prepared, precisions)):
        place = folder / str(number)
        place.mkdir()
        saved, said = _save(part, chosen, place)
        found.update(zip(chosen, lower(part, chosen, saved, place, timeout), strict=True))
        notes += said
    return [found[path] for path in precisions], notes


def _save(
    prepared: Prepared, precisions: Mapping[Path, Precision], folder: Path
) -> tuple[list[Path], list[str]]:
    """Trace the model and save it; once more, with loops unrolled, for integers from samples.

    Returns:
        The SavedModel for each file, and a note for each file whose loops are unrolled.
    """
    model = prepared.model
    found: dict[bool, Path] = {}
    saved, notes = [], []
    for path, precision in precisions.items():
        calibrated = precision.integer and precision.calibration_data() is not None
        unroll = calibrated and bool(check_unrollable(model, precision.name))
        if unroll not in found:
            found[unroll] = folder / f"saved_model_{len(found)}"
            with unrolled(model) if unroll else contextlib.nullcontext():
                ops = save_model(model, prepared.call, found[unroll])
            check_ranges(model, ops, precisions)
        saved.append(found[unroll])
        if unroll:
            notes.append(unrolled_note(model, path.name))
    return saved, notes
