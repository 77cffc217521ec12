"""A float file and samples -> an integer file. Runs in child processes, without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from .bias_correction import corrected
from .calibrated import calibrate, finish
from .kernel_rounding import quantize_in_4_bits
from .quantizer import quantize
from .tensor_values import Samples

Json = dict[str, Any]

WIDE = "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8"
"""The set of ops that computes in int16."""


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
    calibrated = calibrate(
        content,
        samples,
        ranges=options["ranges"],
        bias_correction=options["bias_correction"],
        float_inputs=types[0] == "float32",
        bits=bits,
    )
    if calibrated is None:
        return None
    kept = calibrated.kept_float

    def integers(measured: bytes) -> bytes:
        ready = corrected(measured, calibrated.uncorrected)
        made = quantize(ready, *types, kept, options["per_channel_dense"], bits)
        return finish(made) if bits == 8 else made

    if kernels is None:
        return Lowered(integers(calibrated.content), kept)
    small, rounded = quantize_in_4_bits(calibrated.content, samples, kernels, integers)
    return Lowered(small, kept, rounded.kept)
