"""`convert`: a Keras model and a precision -> a checked .tflite file."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras

from tfcompress.converters.export.layer_names import layer_at
from tfcompress.converters.export.saved_model import save_model
from tfcompress.converters.export.unrolled import check_unrollable, unrolled, unrolled_note
from tfcompress.converters.file.model import Inspection
from tfcompress.converters.precisions.base import Precision
from tfcompress.converters.precisions.float32 import Float32
from tfcompress.edge.arguments import check_bool, check_path, check_seconds
from tfcompress.edge.system.files import write_whole
from tfcompress.edge.system.scratch import scratch_folder

from .checks import check_integer, check_ranges
from .converted import Converted
from .errors import ConversionError
from .hybrid import slow_note
from .judgement import Judgement, judge
from .lowering import Lowered, lower
from .outputs import keras_outputs
from .preparation import PathLike, Prepared, check_files, prepare
from .rewriting import run_pass
from .runtimes import Release, check_runtime, needs, parse_release, runtime_note
from .sparse import Sparse, Sparsified, check_sparse, sparsified


def convert(
    model: keras.Model,
    path: PathLike,
    precision: Precision = Float32(),  # noqa: B008 - frozen
    *,
    batch_size: int | None = None,
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
            `Precision` of your own. Defaults to `Float32()`.
        batch_size: Samples per run. Defaults to None, a free batch, unless the `keras.Input` of a
            functional model fixes it. LSTM, GRU and other loops need a fixed batch. Around a
            Flatten layer, a free batch adds ops that compute shapes at run time, outside XNNPACK.
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
        ValueError: The path, the batch size or the calibration samples cannot be used.
        PermissionError: The folder of `path` may not be written in.
        ConversionError: The model cannot be converted; the message names the op and its layer.
    """
    check_path("path", path)
    return _convert(
        model, {path: precision}, batch_size, strict, sparse, samples, runtime, timeout
    )[0]


def convert_all(
    model: keras.Model,
    files: Mapping[PathLike, Precision],
    *,
    batch_size: int | None = None,
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
        files: Path of each file to write -> its precision.
        batch_size: Samples per run, for all files. Defaults to None, a free batch, unless the
            `keras.Input` of a functional model fixes it.
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
    return _convert(model, files, batch_size, strict, sparse, samples, runtime, timeout)


def _convert(
    model: keras.Model,
    files: Mapping[PathLike, Precision],
    batch_size: int | None,
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
    precisions = check_files(files, config)
    if release is not None:
        precisions = {path: p.for_runtime(release) for path, p in precisions.items()}
    with scratch_folder() as folder:
        prepared = prepare(model, precisions, batch_size, samples)
        saved, loops = _save(model, prepared, precisions, folder)
        lowered = lower(prepared, precisions, saved, folder, timeout)
        notes = _check_runtimes(lowered, precisions, release)
        rewritten = _run_passes(lowered, precisions, config, timeout)
        files_made = [new.dense for new in rewritten]
        run = functools.partial(keras_outputs, prepared.call)
        batch = prepared.call.inputs[0].shape[0]
        judged = judge(run, batch, prepared.judged_by, files_made, timeout)
        converted = _check(model, precisions, rewritten, judged, strict)
        write_whole({path: new.content for path, new in zip(precisions, rewritten, strict=True)})
    said = [*prepared.warnings, *loops, *notes]
    for path, new, result in zip(precisions, rewritten, judged, strict=True):
        said += [f"{path.name}: {fault}" for fault in result.faults]
        said += slow_note(new.dense, path.name)
    for text in said:
        warnings.warn(text, stacklevel=3)  # the caller of `convert` or `convert_all`
    return converted


def _save(
    model: keras.Model, prepared: Prepared, precisions: Mapping[Path, Precision], folder: Path
) -> tuple[list[Path], list[str]]:
    """Trace the model and save it; once more, with loops unrolled, for integers from samples.

    Returns:
        The SavedModel for each file, and a note for each file whose loops are unrolled.
    """
    found: dict[bool, Path] = {}
    saved, notes = [], []
    for path, precision in precisions.items():
        calibrated = precision.integer and precision.calibration_data() is not None
        layers = check_unrollable(prepared.model, precision.name) if calibrated else ()
        unroll = bool(layers)
        if unroll not in found:
            found[unroll] = folder / f"saved_model_{len(found)}"
            with unrolled(prepared.model) if unroll else contextlib.nullcontext():
                ops = save_model(prepared.model, prepared.call, found[unroll])
            check_ranges(model, ops, precisions)
        saved.append(found[unroll])
        if unroll:
            notes.append(unrolled_note(prepared.model, path.name))
    return saved, notes


def _check_runtimes(
    lowered: list[Lowered], precisions: Mapping[Path, Precision], release: Release | None
) -> list[str]:
    """Check that a release of the runtime loads the files; without one, say what the oldest does.

    What `sparsify` stores otherwise needs no newer one, and it drops the converter's note.
    """
    notes = []
    for (found, _), path in zip(lowered, precisions, strict=True):
        needed = needs(found.path)
        if release is None:
            notes.append(runtime_note(needed, path.name))
        else:
            check_runtime(needed, release, path.name)
    return [note for note in notes if note]


class _Rewritten(NamedTuple):
    """A file after all passes.

    Attributes:
        dense: The file before its zeros were stored sparse, which may remove names of layers.
        kept_float: Layers that were kept in float, as int8 would ruin them.
        content: The file as it will be written.
        sparse: What storing the zeros sparse did; None if that was not asked for.
    """

    dense: Inspection
    kept_float: tuple[str, ...]
    content: bytes
    sparse: Sparsified | None


def _run_passes(
    lowered: list[Lowered],
    precisions: Mapping[Path, Precision],
    sparse: Sparse | None,
    timeout: float | None,
) -> list[_Rewritten]:
    """Run the passes of each precision over its file, and then `sparsify`, if it is asked for."""
    rewritten = []
    for (found, kept), (path, precision) in zip(lowered, precisions.items(), strict=True):
        for step in precision.passes():
            found, _ = run_pass(step, found.path, found.path.parent, timeout, path.name)
        if sparse is None:
            rewritten.append(_Rewritten(found, kept, found.path.read_bytes(), None))
        else:
            small, content = sparsified(found, path, sparse, timeout, path.name)
            rewritten.append(_Rewritten(found, kept, content, small))
    return rewritten


def _check(
    model: keras.Model,
    precisions: Mapping[Path, Precision],
    rewritten: list[_Rewritten],
    judged: list[Judgement],
    strict: bool,
) -> list[Converted]:
    """Check what computes in float and how far the outputs are off, and describe the files."""
    converted = []
    for (path, precision), new, found in zip(precisions.items(), rewritten, judged, strict=True):
        layer_of = functools.partial(layer_at, model)
        left = check_integer(
            f"Model '{model.name}'", layer_of, precision, new.dense, new.kept_float, strict
        )
        if strict and found.faults:
            raise ConversionError(
                f"{path.name} would be far from model '{model.name}': {'; '.join(found.faults)}. "
                "Pass strict=False to write the file anyway."
            )
        size = new.sparse or new.dense
        converted.append(
            Converted(
                path=path,
                bytes=size.bytes,
                precision=precision,
                float_macs=left.macs,
                float_casts=left.casts,
                kept_float=new.kept_float,
                outputs=found.outputs,
                sparse=new.sparse,
            )
        )
    return converted
