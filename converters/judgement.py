"""How far the outputs of a file are from those of what it was made from, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tfcompress.converters.file.model import Inspection
from tfcompress.model.samples import Array, thin

from .file_outputs import RunFile, output_scales
from .output_error import OutputError, compare

SAMPLES = 32
"""Enough to see each channel vary; few enough to cost less than the conversion."""

R2 = 0.9
"""Below it, a tenth of what a channel says is lost: an error of a third of its spread."""

_ROWS = 8
"""With fewer values of each channel, their spread is not known."""

_FIXED = {"SOFTMAX", "LOGISTIC", "TANH", "L2_NORMALIZATION"}
"""Ops whose outputs have one unit, and in int8 a fixed step: channels are not judged alone."""


REMEDY = (
    "verify(by_layer=True) shows where. Give the channels one range first: Int8(equalize=True). Or "
    "train with tfcompress.quantize_aware, which can keep layers in float (exclude=), or use "
    "DynamicInt8() or Float16()"
)
"""What to do about a range inside a file that was made of a Keras model."""


class Judgement(NamedTuple):
    """How far the outputs of a file are from the model's.

    Attributes:
        outputs: The errors of each output; none if there were no samples.
        faults: What is wrong, in words.
    """

    outputs: tuple[OutputError, ...] = ()
    faults: tuple[str, ...] = ()


def judge(
    run: Callable[[dict[str, Array]], dict[str, Array]],
    run_file: RunFile,
    judged_by: Sequence[dict[str, Array] | None],
    files: Sequence[Inspection],
    remedy: str = REMEDY,
) -> list[Judgement]:
    """Compare files with what they were made from, on a few of the samples that there are for each.

    Args:
        run: Returns the outputs that are right, by name, for samples by input name. It runs once
            for all files of one calibration.
        run_file: Runs a file. One without outputs is not judged.
        judged_by: For each file the samples; None for no samples.
        files: The files.
        remedy: What to do if a range inside is the cause. Defaults to what a Keras model allows.

    Returns:
        A judgement for each file.

    Raises:
        ConversionError: The runtime fails on a file.
    """
    expected: dict[int, dict[str, Array]] = {}
    judgements = []
    for file, given in zip(files, judged_by, strict=True):
        if given is None:
            judgements.append(Judgement())
            continue
        samples = thin(given, SAMPLES)
        if id(given) not in expected:
            expected[id(given)] = run(samples)
        actual = run_file(file.path, samples)
        wanted = {
            name: value
            for name, value in expected[id(given)].items()
            if name in actual and actual[name].shape == value.shape
        }
        scales = output_scales(file)
        errors = tuple(compare(n, v, actual[n], scales.get(n)) for n, v in wanted.items())
        said = [
            text
            for error in errors
            if (
                text := _fault(file, samples, error, wanted[error.name], actual[error.name], remedy)
            )
        ]
        judgements.append(Judgement(errors, tuple(said)))
    return judgements


def _fault(
    found: Inspection,
    samples: Mapping[str, Array],
    error: OutputError,
    expected: Array,
    actual: Array,
    remedy: str = REMEDY,
) -> str:
    """Say how far an output is from the model's, and what may be the cause; "" if it is near."""
    if expected.dtype.kind != "f" or not np.isfinite(expected).all():
        return ""
    if error.nonfinite:
        return f"output '{error.name}' holds {error.nonfinite} NaN or infinite value(s)"
    if _maker(found, error.name) in _FIXED or expected[..., :1].size < _ROWS:
        r2 = _pooled(expected, actual)
        # Less than a step is all that such an op can give.
        fine = error.mean_lsb is not None and error.mean_lsb <= 1
        if r2 is not None and r2 < R2 and not fine:
            return _sentence(error, expected, None, r2) + _cause(found, samples, remedy)
    elif error.worst_r2 is not None and error.worst_r2 < R2:
        channel = error.worst_channel
        text = _sentence(error, expected, channel, error.worst_r2)
        return text + (_coarse(error, expected, channel) or _cause(found, samples, remedy))
    return ""


def _pooled(expected: Array, actual: Array) -> float | None:
    """Return the share of the variation that a whole output keeps; None if it does not vary."""
    x, y = expected.astype(np.float64), actual.astype(np.float64)
    variance = float(((x - x.mean(0 if len(x) >= _ROWS else None)) ** 2).mean())
    largest = float(np.abs(x).max(initial=0.0))
    return (
        None if variance <= (1e-5 * largest) ** 2 else 1 - float(((y - x) ** 2).mean()) / variance
    )


def _sentence(error: OutputError, values: Array, channel: int | None, r2: float) -> str:
    place, part = f"output '{error.name}'", values
    if channel is not None and len(error.channel_r2) > 1:
        bad = sum(other is not None and other < R2 for other in error.channel_r2)
        place += f", channel {channel} of {len(error.channel_r2)}"
        place += f" (the worst of {bad})" if bad > 1 else ""
        part = values[..., channel]
    return (
        f"{place} keeps {max(r2, 0.0):.0%} of its variation (R2 {r2:.2f}; values from "
        f"{part.min():.4g} to {part.max():.4g})"
    )


def _coarse(error: OutputError, values: Array, channel: int | None) -> str:
    """Say that the step of an output is too coarse for a channel, if it is."""
    part = values if channel is None or values.ndim < 2 else values[..., channel]
    if error.scale is None or error.scale < part.std():
        return ""
    return (
        f". One step of this output is {error.scale:.3g}, since all its channels share the range "
        f"from {values.min():.4g} to {values.max():.4g}: make parts of different sizes outputs of "
        "their own, or scale them to one size"
    )


def _cause(found: Inspection, samples: Mapping[str, Array], remedy: str) -> str:
    """Say which input is rounded too coarsely; else, what to do about a range inside."""
    for name, step in _input_steps(found).items():
        spread = samples[name].reshape(-1, samples[name].shape[-1]).std(0)
        varying = np.flatnonzero(spread > 0)
        if varying.size and spread[varying].min() < step:
            feature = int(varying[spread[varying].argmin()])
            return (
                f". One step of input '{name}' is {step:.3g}, and its feature {feature} varies by "
                f"{spread[feature]:.3g} only: bring the features to one range before they enter "
                "the file, or give the model a Normalization layer and the file float inputs"
            )
    if any(tensor.dtype == "int4" for tensor in found.tensors):
        return (
            ". Weights of 4 bits may be too coarse for some layers: let more of them stay int8 "
            "(keep=, budget=), round by 'gptq', or give more calibration samples"
        )
    return f". A range inside is too wide for the values that matter; {remedy}"


def _input_steps(found: Inspection) -> dict[str, float]:
    """Return the step of each input that is quantized, at the border or by a QUANTIZE op."""
    readers = {node.inputs[0]: node.outputs[0] for node in found.nodes if node.op == "QUANTIZE"}
    places = found.signatures[0].inputs if found.signatures else {}
    scales = {
        name: found.tensors[readers.get(place, place)].scales for name, place in places.items()
    }
    return {name: scale[0] for name, scale in scales.items() if len(scale) == 1}


def _maker(found: Inspection, name: str) -> str:
    """Return the op that computes an output, before it is dequantized."""
    makers = {place: node for node in found.nodes for place in node.outputs}
    node = makers.get(found.signatures[0].outputs[name]) if found.signatures else None
    while node is not None and node.op in ("DEQUANTIZE", "QUANTIZE", "RESHAPE"):
        node = makers.get(node.inputs[0])
    return "" if node is None else node.op
