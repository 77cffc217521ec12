"""Weights in 8 or 4 bits, activations in float: for language models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from tfcompress.edge.arguments import check_choice, check_integer, refuse

from .base import Precision
from .int4_weights import ROUNDINGS
from .registry import register_precision
from .samples import check_calibration


@register_precision
@dataclass(frozen=True)
class WeightOnly(Precision):
    """Weights are int8 or int4, activations float32: a quarter or an eighth of the bytes.

    For language models. Dense layers, products with a constant and the tables of `Embedding` layers
    are stored in integers, with a scale for each output or row; other weights stay float32, and so
    do those of fewer than 1,024 elements. `Converted.kept_weights` lists them. `DynamicInt8` stores
    convolutions, too.

    No data are needed to round to the nearest integers. With 4 bits, "gptq" loses half as much: it
    rounds the weights of a dense layer one after another, so that each makes up for the errors of
    those before it on samples, and gives tables the steps of the smallest squared error. Frantar et
    al. 2022, https://arxiv.org/abs/2210.17323

    >>> WeightOnly(bits=4).activations
    'int8'

    Args:
        bits: 8 or 4. Defaults to 8.
        block: Weights that share a scale, such as 32: finer than a scale for each output, which
            counts with 4 bits, for 4 more bytes a block, and 8 more where no other kernel has as
            many blocks. Needs `activations="float32"`, because the
            reference kernels compute wrong sums of integers in blocks, without an error. Defaults
            to None, a scale for each output.
        activations: What dense layers compute in: "int8" rounds the activations in each run and is
            the fastest; "float32" unpacks the weights and computes as the float32 file would. With
            4 bits or blocks, that is slower than float32. Defaults to "int8".
        rounding: "nearest", or "gptq", which needs `calibration`. Weights that a table and a dense
            layer share are rounded to the nearest, so that they are stored once. Defaults to
            "nearest".
        calibration: Samples for "gptq", in the forms that `Int8` takes: 64 to 500. They judge the
            file, too. Defaults to None.
        max_samples: Number of samples to use at most. Defaults to 500.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is not one of the choices, `block` goes with "int8", or "gptq" with
            no samples.
    """

    bits: int = 8
    block: int | None = None
    activations: str = "int8"
    rounding: str = "nearest"
    calibration: Any = field(default=None, repr=False, compare=False)
    max_samples: int = 500

    name: ClassVar[str] = "weight_only"
    mixes_with: ClassVar[str] = "floats"
    why_not_sparse: ClassVar[str] = (
        "its weights are stored in integers already. Use Float32() with "
        "sparse=Sparse(int8_weights=True)"
    )

    def __post_init__(self) -> None:
        if check_integer("bits", self.bits, 4, 8) not in (4, 8):
            refuse("bits", "4 or 8", self.bits)
        check_choice("activations", self.activations, ("int8", "float32"))
        check_choice("rounding", self.rounding, ROUNDINGS)
        check_calibration(self.calibration)
        check_integer("max_samples", self.max_samples, 1)
        if self.rounding == "gptq" and self.calibration is None:
            raise ValueError(
                "rounding='gptq' looks at samples: WeightOnly(..., rounding='gptq', "
                "calibration=samples), 64 to 500 of them."
            )
        if self.block is not None:
            check_integer("block", self.block, 2)
            if self.activations == "int8":
                raise ValueError(
                    "Blocks need activations='float32': the reference kernels compute wrong sums "
                    "of integers in blocks, without an error, and none of 8 bits run. Received: "
                    f"block={self.block}, activations='int8'"
                )

    def weights(self) -> dict[str, Any]:
        """Return what weights are stored and computed in, as plain values."""
        names = ("bits", "block", "activations", "rounding")
        return {name: getattr(self, name) for name in names}

    def calibration_data(self) -> tuple[Any, int | None] | None:
        """Return the calibration samples, if there are any."""
        return None if self.calibration is None else (self.calibration, self.max_samples)
