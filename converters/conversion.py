"""`convert`: a Keras model and a precision -> a checked .tflite file."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfcompress.converters.export.float32 import as_float32
from tfcompress.converters.export.scope import exporting
from tfcompress.converters.file.read import Inspection
from tfcompress.converters.jobs.run import ChildError, run
from tfcompress.converters.precisions.base import (
    DynamicInt8,
    Float32,
    Int8,
    Precision,
    check_precision,
)
from tfcompress.edge.system.files import write_whole
from tfcompress.model.checks import check_built, check_finite
from tfcompress.model.errors import ModelError
from tfcompress.model.samples import Array, load_samples, whole_batches
from tfcompress.model.signature import Signature, signature

from .diagnostics import explain_crash, explain_error
from .errors import ConversionError
from .int8_coverage import GraphOp, float_macs, quantization_steps
from .sparse import Sparse, Sparsified, check_sparse, sparsified

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Converted(os.PathLike[str]):
    """A .tflite file that was written; usable wherever a path is.

    Attributes:
        path: Where it is.
        bytes: Its size as it ships.
        gzip_bytes: Its size after `gzip -9`.
        precision: What was asked for.
        float_macs: After `Int8`: multiplying ops that stayed float, with their layers.
        leftover: After `Int8`: QUANTIZE and DEQUANTIZE ops in the middle of the graph, with the
            layers that they stand at; those at its inputs and outputs are not counted.
        sparse: What `sparse=` made of it, and its size before; None if that was not asked.
    """

    path: Path
    bytes: int
    gzip_bytes: int
    precision: Precision
    float_macs: tuple[GraphOp, ...] = field(default=())
    leftover: tuple[GraphOp, ...] = field(default=())
    sparse: Sparsified | None = None

    def __fspath__(self) -> str:
        return str(self.path)


def convert(
    model: keras.Model,
    path: PathLike,
    precision: Precision = Float32(),  # noqa: B008 - frozen
    *,
    batch_size: int | None = None,
    strict: bool = False,
    sparse: bool | Sparse = False,
    timeout: float | None = 1800.0,
) -> Converted:
    """Write a Keras model as a .tflite file.

    Only TFLite's own ops are used, so that the file runs wherever TFLite does. The TensorFlow
    converter runs in a child process: if it crashes, you get an error. The file is written whole
    or not at all, and was loaded into the runtime once. Its inputs are named as in Keras, its
    outputs after the layers that make them or the keys of a dict; what is no letter, digit or
    underscore becomes an underscore.

    Example:
    >>> import keras, tempfile
    >>> from tfcompress import converters
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = converters.convert(model, f"{folder}/half.tflite", converters.Float16())
    ...     4096 < file.bytes < 8192  # 2,048 weights of two bytes, and the graph
    True

    Args:
        model: A built `keras.Model`. One in mixed precision is converted as float32. It is left
            as it is.
        path: Of the file to write; ends in ".tflite", in a folder that exists.
        precision: `Float32()`, `Float16()`, `DynamicInt8()` or `Int8(calibration=...)`. Defaults
            to `Float32()`.
        batch_size: Samples per run. None leaves it free, unless a functional model's
            `keras.Input` fixes it. LSTM, GRU and other loops want a fixed one; and around a Flatten
            a free one adds ops that compute shapes at run time, outside XNNPACK.
        strict: After `Int8`, raise if a multiplying op stayed float or a QUANTIZE or DEQUANTIZE is
            left inside the graph. Defaults to False: `Converted` lists them.
        sparse: True, or a `Sparse` with options, to make zeros in the weights save bytes, as
            `sparsify` does: for models that were pruned. Defaults to False.
        timeout: Seconds for the child process; None for no limit. Defaults to 1800.

    Returns:
        The file, and what did not become int8 in it.

    Raises:
        TypeError: `model` is no Keras 3 model, or `precision` is none.
        ValueError: The path or the calibration samples are no good.
        ConversionError: The model cannot be converted; says which op of which layer.
    """
    return convert_all(
        model,
        {path: precision},
        batch_size=batch_size,
        strict=strict,
        sparse=sparse,
        timeout=timeout,
    )[0]


def convert_all(
    model: keras.Model,
    files: Mapping[PathLike, Precision],
    *,
    batch_size: int | None = None,
    strict: bool = False,
    sparse: bool | Sparse = False,
    timeout: float | None = 1800.0,
) -> list[Converted]:
    """Write a Keras model in several precisions: as `convert`, at the price of about one.

    No file is put in place before all are converted and checked.

    Example:
    >>> from tfcompress import converters
    >>> files = {"a.tflite": converters.Float32(), "b.tflite": converters.Float16()}
    >>> converters.convert_all("model.keras", files)
    Traceback (most recent call last):
    ...
    TypeError: Expected a keras.Model. Received: 'model.keras' of type str. If it is a file, ...

    Args:
        model: As for `convert`.
        files: Path -> precision.
        batch_size: As for `convert`.
        strict: As for `convert`.
        sparse: As for `convert`.
        timeout: As for `convert`, for all files together.

    Returns:
        The files, in the order given.

    Raises:
        TypeError: As for `convert`.
        ValueError: As for `convert`.
        ConversionError: As for `convert`.
    """
    _check_model(model)
    precisions = {_check_path(path): check_precision(p) for path, p in files.items()}
    if len(precisions) < len(files) or not files:
        raise ValueError(f"files must be one or more different paths. Received: {list(files)}")
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"batch_size must be a positive whole number. Received: {batch_size!r}")
    config = check_sparse(sparse)
    if config is not None and any(isinstance(p, DynamicInt8) for p in precisions.values()):
        raise ConversionError(
            "DynamicInt8() has no sparse form that the runtime computes right. With sparse=, use "
            "Float32(), Float16() or Int8(); for int8 weights and float activations, Float32() "
            "with sparse=Sparse(int8_weights=True)."
        )
    wide, call = _prepare(model, batch_size)
    samples = _calibration(call, list(precisions.values()))
    with tempfile.TemporaryDirectory(prefix="tfcompress-") as name:
        folder = Path(name)
        ops = _export(wide, call, folder / "saved_model")
        _check_fake_quant(model, ops, list(precisions.values()))
        found = _lower(model, call, list(precisions.values()), samples, folder, timeout)
        converted, contents = [], {}
        for (path, precision), inspection in zip(precisions.items(), found, strict=True):
            file = _judge(model, path, precision, inspection, strict)
            contents[path] = inspection.path.read_bytes()
            if config is not None:
                small, contents[path] = sparsified(inspection, path, config, timeout)
                file = replace(file, bytes=small.bytes, gzip_bytes=small.gzip_bytes, sparse=small)
            converted.append(file)
        write_whole(contents)
    return converted


def _check_path(path: PathLike) -> Path:
    file = Path(path).expanduser()
    if file.suffix != ".tflite":
        raise ValueError(f"The path must end in '.tflite'. Received: path='{file}'")
    if file.is_dir():
        raise ValueError(f"The path is a folder. Received: path='{file}'")
    if not file.parent.is_dir():
        raise ValueError(f"There is no folder '{file.parent}' to write '{file.name}' in: create it")
    return file


def _check_model(model: keras.Model) -> None:
    try:
        check_built(model)
    except ModelError as error:
        raise ConversionError(str(error)) from error


def _prepare(model: keras.Model, batch_size: int | None) -> tuple[keras.Model, Signature]:
    """The model in float32, and how it is called."""
    try:
        check_finite(model)
        wide = as_float32(model)
        return wide, signature(wide, batch_size)
    except ModelError as error:
        raise ConversionError(str(error)) from error


def _calibration(call: Signature, precisions: list[Precision]) -> list[dict[str, Array] | None]:
    """Checked samples per file; a generator that two files share is read once."""
    loaded: dict[tuple[int, int], dict[str, Array]] = {}
    result: list[dict[str, Array] | None] = []
    for precision in precisions:
        if not isinstance(precision, Int8) or precision.calibration is None:
            result.append(None)
            continue
        key = (id(precision.calibration), precision.max_samples)
        if key not in loaded:
            loaded[key] = load_samples(
                precision.calibration, call.inputs, max_samples=precision.max_samples
            )
        result.append(loaded[key])
    return result


def _export(model: keras.Model, call: Signature, folder: Path) -> set[str]:
    """Trace the model and save it for the child process; returns the types of its ops."""
    import tensorflow as tf

    specs = {s.name: tf.TensorSpec(s.shape, s.dtype, name=s.name) for s in call.inputs}

    def serve(**named: Any) -> dict[str, Any]:
        # An identity each: two outputs may be one tensor, and an output may be an input.
        return {name: tf.identity(value) for name, value in call.call(named).items()}

    try:
        with exporting():
            traced = tf.function(serve, autograph=False).get_concrete_function(**specs)
    except ConversionError:
        raise
    except Exception as error:
        raise ConversionError(
            f"Model '{model.name}' cannot be traced for inputs "
            f"{[(s.name, s.shape, s.dtype) for s in call.inputs]}: {error}"
        ) from error
    module = tf.Module()  # without the function: it would be traced again, as it trains
    captured = {id(tensor) for tensor in traced.captured_inputs}
    module.state = [v for v in traced.variables if id(v.handle) in captured]
    try:
        with _quiet():
            tf.saved_model.save(module, str(folder), signatures=traced)
    except Exception as error:
        raise ConversionError(
            f"Model '{model.name}' holds something that cannot be exported, such as a lookup "
            f"table: {error}"
        ) from error
    graph = traced.graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    return {node.op for node in nodes}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep TensorFlow from announcing where it saved the temporary files."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_fake_quant(model: keras.Model, ops: set[str], precisions: list[Precision]) -> None:
    ranges = any(op.startswith("FakeQuant") for op in ops)
    for precision in precisions:
        calibrated = isinstance(precision, Int8) and precision.calibration is not None
        if isinstance(precision, Int8) and not calibrated and not ranges:
            raise ConversionError(
                f"Int8 needs samples to read the ranges of the activations of '{model.name}' off: "
                "Int8(calibration=samples), about 100 to 500 of them from the training data."
            )
        if ranges and not isinstance(precision, Int8):
            raise ConversionError(
                f"Model '{model.name}' holds fake-quantization: its file is an int8 one, and "
                f"{precision.name} is not to be had. Use Int8(), or convert the float model that "
                "tfcompress.strip(model) gives."
            )
        if ranges and calibrated:
            raise ConversionError(
                f"Model '{model.name}' holds its own ranges as fake-quantization, and samples "
                "would quantize what it keeps in float. Leave them out: Int8(). To set the ranges "
                "from samples, call tfcompress.calibrate(model, samples)."
            )


def _lower(
    model: keras.Model,
    call: Signature,
    precisions: list[Precision],
    samples: list[dict[str, Array] | None],
    folder: Path,
    timeout: float | None,
) -> list[Inspection]:
    """Run the converter in the child process: the files, in `folder`, each inspected."""
    batch = call.inputs[0].shape[0] or 1
    saved: dict[int, dict[str, Any]] = {}
    for arrays in samples:
        if arrays is not None and id(arrays) not in saved:
            file = folder / f"samples_{len(saved)}.npz"
            np.savez(file, *whole_batches(arrays, batch).values())
            saved[id(arrays)] = {"path": str(file), "names": list(arrays), "batch_size": batch}
    request: dict[str, Any] = {
        "saved_model": str(folder / "saved_model"),
        "progress": str(folder / "progress"),
        "files": [
            {
                "path": str(folder / f"{index}.tflite"),
                "precision": precision.name,
                "io": precision.io if isinstance(precision, Int8) else "float32",
                "samples": None if arrays is None else saved[id(arrays)],
            }
            for index, (precision, arrays) in enumerate(zip(precisions, samples, strict=True))
        ],
    }
    try:
        reply = run("jobs.lower", request, folder, timeout)
    except ChildError as error:
        progress = folder / "progress"
        index = int(progress.read_text("utf-8")) if progress.exists() else 0
        raise explain_crash(model, precisions[index], error) from error
    if "error" in reply:
        raise explain_error(model, precisions[reply["index"]], reply["error"])
    return [
        Inspection.from_description(Path(file["path"]), read)
        for file, read in zip(request["files"], reply["files"], strict=True)
    ]


def _judge(
    model: keras.Model, path: Path, precision: Precision, found: Inspection, strict: bool
) -> Converted:
    if found.load_error:
        raise ConversionError(
            f"Model '{model.name}' was converted to {precision.name}, but the runtime does not "
            f"load the result: {found.load_error}"
        )
    if not isinstance(precision, Int8):
        return Converted(path, found.bytes, found.gzip_bytes, precision)
    macs, steps = float_macs(found, model), quantization_steps(found, model)
    if strict and (macs or steps):
        left = ", ".join(map(str, (*macs, *steps)))
        raise ConversionError(
            f"Model '{model.name}' did not become int8 throughout. Left: {left}. Replace these "
            "layers, or pass strict=False to accept that they run in float."
        )
    return Converted(path, found.bytes, found.gzip_bytes, precision, macs, steps)
