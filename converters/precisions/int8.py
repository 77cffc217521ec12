"""Weights and activations in int8."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from tfcompress.converters.jobs.range_choices import CHOICES
from tfcompress.edge.arguments import check_bool, check_choice, check_integer

from .base import ConverterOptions, Precision
from .registry import register_precision
from .samples import check_calibration

IO_TYPES = ("float32", "int8", "uint8")


@register_precision
@dataclass(frozen=True)
class Int8(Precision):
    """Weights and activations are int8: the smallest and, on most CPUs, the fastest.

    Weights are symmetric per output channel, activations asymmetric per tensor, after Jacob et
    al. 2018 (https://arxiv.org/abs/1712.05877) and the TFLite 8-bit specification. The ranges of
    the activations are measured on `calibration`, samples like those that the model will see.

    >>> import numpy as np
    >>> Int8(calibration=np.zeros((8, 4), "float32"), io="int8")
    Int8(io='int8', max_samples=500, equalize=False, ranges='mse', bias_correction=False)

    Args:
        calibration: An array (for one input), a dict of arrays by input name, a generator or
            `tf.data.Dataset` of either (with or without targets), a function that returns one of
            these, such as TFLite's `representative_dataset`, or the path of an .npz file with
            such arrays. The first axis is the batch. Defaults to None, which is for a model from
            `tfcompress.quantize_aware` only: it holds its ranges.
        io: Type that the file takes and gives: "float32" (quantized inside), "int8" or "uint8".
            Integer inputs, such as token ids, keep their type. Defaults to "float32".
        max_samples: Number of samples to use at most: evenly spaced ones of an array, the first
            ones of a generator or dataset. Defaults to 500.
        equalize: Whether scales are moved between layers first, so that the channels of a tensor
            are as large as each other: `tfcompress.equalize`, over the calibration samples.
            Defaults to False.
        ranges: How the range of each activation follows from its values on the samples: "mse" for
            the smallest squared error of rounding and clipping, "minmax" for the lowest and the
            highest value, "percentile" for all but a 10,000th of the values at each end. Inputs
            always keep the lowest and the highest. Defaults to "mse".
        bias_correction: Whether to take from each bias what rounding the kernel adds to the outputs
            on average over the samples. Defaults to False.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `io` or `ranges` is not one of the three, `max_samples` is not positive, there
            is no file at the path given as `calibration`, or `equalize` is given without samples.
    """

    calibration: Any = field(default=None, repr=False, compare=False)
    io: str = "float32"
    max_samples: int = 500
    equalize: bool = False
    ranges: str = "mse"
    bias_correction: bool = False

    name: ClassVar[str] = "int8"
    mixes_with: ClassVar[str] = "integers"
    needs_ranges: ClassVar[bool] = True
    takes_fake_quantization: ClassVar[bool] = True
    integer: ClassVar[bool] = True
    io_types: ClassVar[tuple[str, ...]] = IO_TYPES

    def __post_init__(self) -> None:
        check_choice("io", self.io, self.io_types)
        check_integer("max_samples", self.max_samples, 1)
        check_choice("ranges", self.ranges, CHOICES)
        check_bool("bias_correction", self.bias_correction)
        check_bool("equalize", self.equalize)
        if self.equalize and self.calibration is None:
            raise ValueError(
                "`equalize=True` looks at samples: give them as `calibration`. A model from "
                "`quantize_aware` is equalized before that, with tfcompress.equalize."
            )
        check_calibration(self.calibration)

    def converter_options(self) -> ConverterOptions:
        """Return the options for int8 throughout."""
        return ConverterOptions(
            optimizations=("DEFAULT",),
            input_type=self.io,
            output_type=self.io,
            ranges=self.ranges,
            bias_correction=self.bias_correction,
        )

    def equalizes(self) -> bool:
        """Return whether scales are moved between layers first."""
        return self.equalize

    def calibration_data(self) -> tuple[Any, int | None] | None:
        """Return the calibration samples, if there are any."""
        return None if self.calibration is None else (self.calibration, self.max_samples)
