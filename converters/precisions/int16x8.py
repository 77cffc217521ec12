"""Weights in int8, activations in int16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import ConverterOptions
from .int8 import Int8
from .registry import register_precision

IO_TYPES = ("float32", "int16")


@register_precision
@dataclass(frozen=True)
class Int16x8(Int8):
    """Weights are int8, activations int16: for microcontrollers and NPUs, not for XNNPACK.

    The file is as small as in int8 and closer to float32, since 65,536 steps replace 256 in each
    tensor. On a CPU it is far slower than float32, because XNNPACK has no kernels for it.

    >>> import numpy as np
    >>> Int16x8(calibration=np.zeros((8, 4), "float32")).io
    'float32'

    Args:
        calibration: Samples that set the ranges of the activations, in the forms that `Int8` takes.
        io: Type that the file takes and gives: "float32" (quantized inside) or "int16". Defaults to
            "float32".
        max_samples: Number of samples to use at most. Defaults to 500.
        equalize: Whether scales are moved between layers first, so that the channels of a tensor
            are as large as each other: `tfcompress.equalize`. Defaults to False.
        ranges: How the range of each activation follows from its values on the samples: "mse" for
            the smallest squared error of rounding and clipping, "minmax" for the lowest and the
            highest value, "percentile" for all but a 10,000th of the values at each end. Defaults
            to "mse".
        bias_correction: Whether to take from each bias what rounding the kernel adds to the outputs
            on average over the samples. Defaults to False.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `io` or `ranges` is none of the choices, `max_samples` is not positive, or there
            is no file at the path given as `calibration`.
    """

    name: ClassVar[str] = "int16x8"
    mixes_with: ClassVar[str] = ""
    takes_fake_quantization: ClassVar[bool] = False
    why_not_sparse: ClassVar[str] = (
        "the runtime unpacks sparse int8 weights for float and int8 activations only. Use Int8()"
    )
    io_types: ClassVar[tuple[str, ...]] = IO_TYPES

    def converter_options(self) -> ConverterOptions:
        """Return the options for activations of 16 bits."""
        ops = "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8"
        return ConverterOptions(
            optimizations=("DEFAULT",),
            supported_ops=(ops,),
            input_type=self.io,
            output_type=self.io,
            ranges=self.ranges,
            bias_correction=self.bias_correction,
        )
