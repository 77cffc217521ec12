"""What `convert` and `quantize` refuse: paths, precisions that do not fit, poor files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tfcompress.converters.file.model import Inspection
from tfcompress.converters.precisions.base import Precision
from tfcompress.converters.precisions.registry import registered_precisions
from tfcompress.edge.arguments import check_path
from tfcompress.edge.system.files import check_folder

from .converted import Converted
from .errors import ConversionError
from .finishing import Finished
from .hybrid import speed_notes
from .int8_coverage import FloatOps, LayerOf, float_ops
from .judgement import Judgement

if TYPE_CHECKING:
    import keras


def check_ranges(model: keras.Model, ops: set[str], precisions: Mapping[Path, Precision]) -> None:
    """Check that each precision gets its ranges of the activations from one source.

    Args:
        model: The model.
        ops: Types of the ops in its graph.
        precisions: The precisions by path.

    Raises:
        ConversionError: The ranges are missing, come twice, or would be lost.
    """
    fake_quantization = any(op.startswith("FakeQuant") for op in ops)
    for precision in precisions.values():
        calibrated = precision.calibration_data() is not None
        name = type(precision).__name__
        if fake_quantization and not precision.takes_fake_quantization:
            takers = [c for c in registered_precisions().values() if c.takes_fake_quantization]
            raise ConversionError(
                f"Model '{model.name}' holds fake-quantization, which a {precision.name} file "
                f"cannot have. Use {' or '.join(f'{c.__name__}()' for c in takers)}, or convert "
                "the float model that tfcompress.strip(model) returns."
            )
        if fake_quantization and calibrated:
            raise ConversionError(
                f"Model '{model.name}' holds its own ranges as fake-quantization, and samples "
                f"would quantize layers that it keeps in float. Leave them out: {name}(). To set "
                "the ranges from samples, call tfcompress.calibrate(model, samples)."
            )
        if precision.needs_ranges and not fake_quantization and not calibrated:
            raise ConversionError(
                f"{name} needs samples to measure the ranges of the activations of "
                f"'{model.name}': {name}(calibration=samples), about 100 to 500 of them from the "
                "training data."
            )


def check_output(name: str, path: str | os.PathLike[str]) -> Path:
    """Check the path of a .tflite file to write, before anything else happens.

    Args:
        name: Name of the argument in errors.
        path: The path.

    Returns:
        The path, as a `Path`.

    Raises:
        TypeError: It is no path.
        ValueError: It does not end in ".tflite", is a folder, or lies in none that exists.
        PermissionError: Its folder may not be written in.
    """
    file = check_path(name, path).expanduser()
    if file.suffix != ".tflite":
        raise ValueError(f"The path must end in '.tflite'. Received: {name}='{file}'")
    if file.is_dir():
        raise ValueError(f"The path is a folder. Received: {name}='{file}'")
    check_folder(file)
    return file


def checked(
    label: str,
    layer_of: LayerOf,
    path: Path,
    precision: Precision,
    new: Finished,
    found: Judgement,
    strict: bool,
) -> Converted:
    """Check what computes in float and how far the outputs are off, and describe the file.

    Args:
        label: What the file was made from: "model 'net'".
        layer_of: Returns the layer that the name of an op or tensor leads to, or None.
        path: Path that the file will have.
        precision: What was asked for.
        new: The file.
        found: How far its outputs are off.
        strict: Whether to raise if there are float ops or faults.

    Returns:
        What to say about the file.

    Raises:
        ConversionError: `strict`, and the file computes in float or is far from what it was made
            from.
    """
    left = _check_integer(label, layer_of, precision, new.dense, new.kept_float, strict)
    if strict and found.faults:
        raise ConversionError(
            f"{path.name} would be far from {label}: {'; '.join(found.faults)}. "
            "Pass strict=False to write the file anyway."
        )
    return Converted(
        path=path,
        bytes=(new.sparse or new.dense).bytes,
        precision=precision,
        float_macs=left.macs,
        float_casts=left.casts,
        kept_float=new.kept_float,
        kept_weights=new.kept_weights,
        notes=speed_notes(new.dense),
        outputs=found.outputs,
        sparse=new.sparse,
    )


def _check_integer(
    label: str,
    layer_of: LayerOf,
    precision: Precision,
    found: Inspection,
    kept_float: tuple[str, ...],
    strict: bool,
) -> FloatOps:
    """Find what computes in float although the precision asks for integers.

    Args:
        label: What the file was made from.
        layer_of: Returns the layer that the name of an op or tensor leads to, or None.
        precision: What was asked for.
        found: The file.
        kept_float: Layers that were kept in float, as int8 would ruin them.
        strict: Whether to raise if there is any.

    Returns:
        The float ops; none for a precision that does not ask for integers.

    Raises:
        ConversionError: `strict`, and there are float ops; the message names them all.
    """
    if not precision.integer:
        return FloatOps()
    left = float_ops(found, layer_of, kept_float)
    if strict and (left.macs or left.casts):
        names = ", ".join(map(str, (*left.macs, *left.casts)))
        raise ConversionError(
            f"{label[0].upper()}{label[1:]} did not become {precision.name} throughout. "
            f"These ops compute in float: {names}. Replace their layers, or pass strict=False to "
            "accept them."
        )
    return left
