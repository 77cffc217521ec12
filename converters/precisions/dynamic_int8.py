"""Weights in int8, activations quantized at run time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from tfcompress.edge.arguments import check_bool

from .base import ConverterOptions, Precision
from .registry import register_precision


@register_precision
@dataclass(frozen=True)
class DynamicInt8(Precision):
    """Weights are int8, a quarter of the bytes; activations are quantized in each run.

    Needs no data. The converter leaves a kernel of less than 1024 elements in float32. Tables of
    embeddings have a scale for each row, and are stored once where a dense layer has the same
    weights.

    >>> DynamicInt8().name
    'dynamic_int8'

    Args:
        per_channel_dense: Whether each unit of a Dense kernel has a scale of its own. False gives
            one scale to the whole kernel, which is coarser, and which runtimes before 2.17 read,
            such as tflite-runtime 2.14. Defaults to True.
    """

    per_channel_dense: bool = True

    name: ClassVar[str] = "dynamic_int8"
    why_not_sparse: ClassVar[str] = (
        "the runtime computes wrong results from sparse int8 weights and float activations. Use "
        "Float32(), Float16() or Int8(); for int8 weights and float activations, Float32() with "
        "sparse=Sparse(int8_weights=True)"
    )

    def __post_init__(self) -> None:
        check_bool("per_channel_dense", self.per_channel_dense)

    def converter_options(self) -> ConverterOptions:
        """Return the options for int8 weights without calibration."""
        return ConverterOptions(
            optimizations=("DEFAULT",), per_channel_dense=self.per_channel_dense
        )

    def for_runtime(self, release: tuple[int, ...]) -> Precision:
        """Return the precision with one scale for each Dense kernel before release 2.17."""
        return self if release >= (2, 17) else replace(self, per_channel_dense=False)
