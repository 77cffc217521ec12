"""What `convert` refuses: models that do not fit the precision, files that keep float ops."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tfcompress.converters.file.model import Inspection
from tfcompress.converters.precisions.base import Precision
from tfcompress.converters.precisions.registry import registered_precisions

from .errors import ConversionError
from .int8_coverage import FloatOps, LayerOf, float_ops

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


def check_integer(
    label: str,
    layer_of: LayerOf,
    precision: Precision,
    found: Inspection,
    kept_float: tuple[str, ...],
    strict: bool,
) -> FloatOps:
    """Find what computes in float although the precision asks for integers.

    Args:
        label: What the file was made from, at the beginning of a sentence.
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
            f"{label} did not become {precision.name} throughout. These ops compute in float: "
            f"{names}. Replace their layers, or pass strict=False to accept them."
        )
    return left
