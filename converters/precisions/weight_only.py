"""Weights in 8 or 4 bits, activations in float: for language models."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from tfcompress.edge.arguments import check_choice, check_integer, refuse

from .base import Precision
from .registry import register_precision


@register_precision
@dataclass(frozen=True)
class WeightOnly(Precision):
    """Weights are int8 or int4, activations float32: a quarter or an eighth of the bytes, no data.

    For language models. Dense layers, products with a constant and the tables of `Embedding` layers
    are stored in integers, with a scale for each output or row; other weights stay float32, and so
    do those of fewer than 1,024 elements. `Converted.kept_weights` lists them. `DynamicInt8` stores
    convolutions, too, but gives a table one scale for all its rows.

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

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is not one of the choices, or `block` goes with "int8".
    """

    bits: int = 8
    block: int | None = None
    activations: str = "int8"

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
        return asdict(self)
