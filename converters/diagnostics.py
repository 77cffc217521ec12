"""Errors of the TensorFlow converter -> what a person can do about them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import keras

from tfcompress.converters.export.free_sizes import how_to_fix_sizes
from tfcompress.converters.export.layer_names import layer_at
from tfcompress.converters.export.unrolled import looping
from tfcompress.converters.file.model import GraphOp
from tfcompress.converters.jobs.run import ChildError
from tfcompress.converters.passes.graph import OPS
from tfcompress.converters.precisions.base import Precision
from tfcompress.model.samples import InputSpec

from .errors import ConversionError

# A GRU of 32 units over 100 steps: 12 times as large after quantize_aware, 24 times from samples.
_GROWS = "The file then holds the ops of each step: over 100 steps, 12 to 24 times the bytes."


def explain_crash(model: keras.Model, precision: Precision, error: ChildError) -> ConversionError:
    """Return the error for a converter process that crashed or took too long.

    Args:
        model: The model that was converted.
        precision: The precision that was asked for.
        error: How the process ended.

    Returns:
        An error that names the model and says what to do.
    """
    text = f"The TensorFlow converter {error.reason} on model '{model.name}' to {precision.name}."
    if error.reason.startswith("took"):
        return ConversionError(f"{text} Pass a larger timeout, or fewer calibration samples.")
    if "No module named" in error.log or "ImportError" in error.log:
        return ConversionError(f"{text} Its process could not start: {error}")
    loops = _loops(model)
    if loops:
        return ConversionError(
            f"{text} It is known to crash on recurrent layers with a loop, here {loops}. "
            "Unroll them, which works on a trained model too: `layer.unroll = True`, then convert "
            f"again. {_GROWS} Or choose another precision."
        )
    if "SIGKILL" in error.reason:
        return ConversionError(
            f"{text} The system does so when memory runs out: free some, or pass fewer "
            "calibration samples."
        )
    last = str(error).removeprefix(error.reason).lstrip(": ")
    said = f" It said last: {last}." if last else ""
    return ConversionError(
        f"{text}{said} Try another precision or batch_size=1, and convert parts of the model to "
        "find the layer."
    )


def explain_error(
    model: keras.Model, inputs: Sequence[InputSpec], precision: Precision, message: str
) -> ConversionError:
    """Return the error for a model that the converter refused.

    Args:
        model: The model that was converted.
        inputs: Its inputs.
        precision: The precision that was asked for.
        message: What the converter said.

    Returns:
        An error that names the ops without a TFLite form, with their layers, and says what to do.
    """
    start = f"Model '{model.name}' cannot be converted to {precision.name}:"
    found = list(dict.fromkeys(_unsupported(model, message)))
    if found:
        names = ", ".join(f"op {GraphOp(*pair)}" for pair in found)
        loops = _loops(model)
        lists = any(op.startswith("TensorList") for op, _ in found)
        if loops and lists:
            return ConversionError(
                f"{start} the loop in {loops} needs to know the batch (it stopped at {names}). "
                f"Pass batch_size=1, or unroll the layer: `layer.unroll = True`. {_GROWS}"
            )
        how = how_to_fix_sizes(inputs)
        if how and all(_has_builtin(op) for op, _ in found):
            return ConversionError(f"{start} the sizes at {names} are not known. {how}")
        return ConversionError(
            f"{start} TFLite has no builtin for {names}. Replace the layer, or write it with other "
            f"ops of keras.ops. {how}".rstrip()
        )
    return ConversionError(f"{start} {_first_line(message)}")


def _has_builtin(op: str) -> bool:
    """Return whether TFLite has an op of the same name as an op of TensorFlow."""
    builtins = {name.replace("_", "").lower() for name in OPS.values()}
    return op.lower() in builtins


def _unsupported(model: keras.Model, message: str) -> Iterator[tuple[str, str | None]]:
    """Find the ops without a TFLite form, with their layers, in the text of an error."""
    ops = [
        op.strip()
        for line in re.findall(r"^(?:TF Select|Custom) ops: (.+)$", message, re.MULTILINE)
        for op in line.split(",")
    ]
    ops += re.findall(r"error: .*'tf\.(\w+)' op ", message)
    # A location reads fused["MatrixInverse:", "model_1/layer_1/MatrixInverse@function"].
    places = re.findall(r'fused\["(\w+):", "([^"@]+)', message)
    for op in dict.fromkeys(ops):
        layers = [layer_at(model, place) for kind, place in places if kind == op]
        yield from ((op, layer) for layer in layers or [None])


def _loops(model: keras.Model) -> str:
    return ", ".join(f"'{layer.name}'" for layer in looping(model))


def _first_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[0] if lines else "the converter gave no reason"
