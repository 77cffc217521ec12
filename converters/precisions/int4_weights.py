"""Weights in 4 bits where that pays, activations in int8."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from tfcompress.edge.arguments import check_choice, check_integer, refuse

from .int8 import Int8
from .kernels import Kernels
from .registry import register_precision

ROUNDINGS = ("gptq", "nearest")


@register_precision
@dataclass(frozen=True)
class Int4Weights(Int8):
    """Kernels of convolutions and dense layers are int4, all else is int8 as in `Int8`.

    The file is half to two thirds as large as in int8. On XNNPACK, dense layers are as fast or a
    little faster; convolutions run on TFLite's own kernels, several times slower. Depthwise and
    transposed convolutions stay int8, since not all runtimes have them in 4 bits.
    `Converted.kept_weights` lists the layers that stay int8, with the reason.

    "gptq" rounds the weights of a layer one after another, so that each makes up for the errors of
    those before it in the outputs of the layer on the calibration samples. Layers are rounded in
    order, each with the inputs that the rounded layers before it give. Frantar et al. 2022,
    https://arxiv.org/abs/2210.17323

    >>> import numpy as np
    >>> Int4Weights(calibration=np.zeros((8, 4), "float32"), keep=["head"]).rounding
    'gptq'

    Args:
        calibration: Samples that set the ranges of the activations and, for "gptq", the weights, in
            the forms that `Int8` takes; 100 to 500. Defaults to None, which is for a model from
            `quantize_aware` with a `QuantizationScheme` of 4 bits: it is stored as it was trained.
        io: Type that the file takes and gives: "float32" (quantized inside), "int8" or "uint8".
            Defaults to "float32".
        max_samples: Number of samples to use at most. Defaults to 500.
        equalize: Whether scales are moved between layers first, so that the channels of a tensor
            are as large as each other: `tfcompress.equalize`. Defaults to False.
        ranges: How the range of each activation follows from its values on the samples: "mse" for
            the smallest squared error of rounding and clipping, "minmax" for the lowest and the
            highest value, "percentile" for all but a 10,000th of the values at each end. Defaults
            to "mse".
        bias_correction: Whether to take from each bias what rounding the kernel adds to the outputs
            on average over the samples. Defaults to False.
        rounding: "gptq", or "nearest" for the nearest of 15 steps. Defaults to "gptq".
        keep: Layers that stay int8: a regular expression searched in the layer's path, a list of
            layers or names, a function of the layer, or None for none. Defaults to "auto": without
            a budget, the first layer and the last one.
        budget: Largest size of the file in bytes. Further layers stay int8 while there is room: the
            choice with the smallest sum of the relative squared errors of the weights that are
            rounded to 4 bits. Needs SciPy. Defaults to None, no limit: all others get 4 bits.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `io`, `ranges` or `rounding` is none of the choices, a number is not positive,
            `keep` is empty, or there is no file at the path given as `calibration`.
    """

    rounding: str = "gptq"
    keep: Any = field(default="auto", compare=False)
    budget: int | None = None

    name: ClassVar[str] = "int4_weights"
    why_not_sparse: ClassVar[str] = (
        "TFLite has no sparse form of weights of 4 bits. Use Int8() with sparse=True"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("rounding", self.rounding, ROUNDINGS)
        if self.budget is not None:
            check_integer("budget", self.budget, 1)
        self._check_keep()

    def _check_keep(self) -> None:
        # What it selects is checked with the layers of the model, when that is converted.
        wanted = '"auto", a regular expression, a list of layers or names, a function, or None'
        keep = self.keep
        if isinstance(keep, str | list | tuple):
            if not keep:
                refuse("keep", wanted, keep)
            entries = [] if isinstance(keep, str) else keep
            if not all(isinstance(e, str) or hasattr(e, "name") for e in entries):
                refuse("keep", wanted, keep, TypeError)
        elif keep is not None and (isinstance(keep, type) or not callable(keep)):
            refuse("keep", wanted, keep, TypeError)

    def kernels(self) -> Kernels:
        """Return which kernels are rounded to 4 bits, and how."""
        auto = isinstance(self.keep, str) and self.keep == "auto"
        return Kernels(self.rounding, None if auto else self.keep, auto, self.budget)
