"""A float file and samples -> an integer file. Runs in child processes, without TensorFlow."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ..passes.flatbuffer import unpack
from ..passes.graph import graphs
from .bias_correction import corrected
from .calibrated import Calibrated, calibrate, finish
from .kernel_rounding import quantize_in_4_bits
from .normalizations import normalizations
from .quantizer import quantize
from .ranges import is_float
from .tensor_values import Samples, runs

Json = dict[str, Any]

WIDE = "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8"
"""The set of ops that computes in int16."""

_ENOUGH = 0.9
"""Share of its variation that each output must keep for normalizations to be int8."""

_SEEN = 32
"""Samples that tell it."""


class Lowered(NamedTuple):
    """A .tflite file.

    Attributes:
        content: The file.
        kept_float: The names of the ops that int8 would have ruined.
        kept_weights: Layer -> why its kernel has 8 bits in a file of 4 bits.
    """

    content: bytes
    kept_float: Sequence[str] = ()
    kept_weights: Mapping[str, str] = MappingProxyType({})


def post_training(
    content: bytes, options: Json, samples: Samples, kernels: Json | None
) -> Lowered | None:
    """Quantize a float file.

    Args:
        content: The float file.
        options: The fields of `ConverterOptions`.
        samples: Calibration samples.
        kernels: The fields of `KernelRequest`; None for kernels of 8 bits.

    Returns:
        The integer file; None for a float file with loops or variables, whose tensors are out of
        reach of our calibration.

    Raises:
        NotFinite: A tensor becomes NaN.
        KernelsRefused: There is no file as `kernels` asks for.
    """
    bits = 16 if options["supported_ops"] == [WIDE] else 8
    types = options["input_type"] or "float32", options["output_type"] or "float32"
    ready = functools.partial(
        calibrate,
        content,
        samples,
        ranges=options["ranges"],
        bias_correction=options["bias_correction"],
        float_inputs=types[0] == "float32",
        bits=bits,
    )
    calibrated = ready()
    if calibrated is None:
        return None
    if bits == 8 and normalizations(graphs(unpack(content))[0]):
        per_channel = options["per_channel_dense"]
        kept_variation = _variation(content, calibrated, per_channel, samples)
        if kept_variation < _ENOUGH:
            wide = ready(float_normalizations=True)
            assert wide is not None
            if _variation(content, wide, per_channel, samples) > kept_variation:
                calibrated = wide
    kept = calibrated.kept_float

    def integers(measured: bytes) -> bytes:
        ready = corrected(measured, calibrated.uncorrected)
        made = quantize(ready, *types, kept, options["per_channel_dense"], bits)
        return finish(made) if bits == 8 else made

    if kernels is None:
        return Lowered(integers(calibrated.content), kept)
    small, rounded = quantize_in_4_bits(calibrated.content, samples, kernels, integers)
    return Lowered(small, kept, rounded.kept)


def _variation(
    content: bytes, calibrated: Calibrated, per_channel_dense: bool, samples: Samples
) -> float:
    """Return the share of their variation that the outputs of an int8 file keep, at worst."""
    ready = corrected(calibrated.content, calibrated.uncorrected)
    kept = calibrated.kept_float
    made = finish(quantize(ready, kept_float=kept, per_channel_dense=per_channel_dense))
    size = min(samples.size, max(_SEEN // samples.batch_size, 1) * samples.batch_size)
    some = samples._replace(arrays={k: v[:size] for k, v in samples.arrays.items()})
    exact = _outputs(content, some)
    try:
        found = _outputs(made, some)
    except RuntimeError:  # A divisor that int8 rounds to zero ends the run.
        return -math.inf
    worst = 1.0
    for wanted, actual in zip(exact, found, strict=True):
        spread = float(np.square(wanted - wanted.mean(0)).sum())
        if wanted.shape == actual.shape and spread > 0:
            worst = min(worst, 1 - float(np.square(actual - wanted).sum()) / spread)
    return worst


def _outputs(content: bytes, samples: Samples) -> list[np.ndarray[Any, np.dtype[Any]]]:
    """Return the float outputs of a file, in their order."""
    graph = graphs(unpack(content))[0]
    places = [int(i) for i in graph.tables.outputs if is_float(graph, int(i))]
    rows = [[run.values(i) for i in places] for run in runs(graph, places, samples)]
    return [np.concatenate(values).astype(np.float64) for values in zip(*rows, strict=True)]
