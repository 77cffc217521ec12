"""What a precision is: how the converter makes its file, and what is checked in it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from tfcompress.converters.jobs.range_choices import CHOICES
from tfcompress.converters.passes.base import Pass
from tfcompress.edge.arguments import check_bool, check_choice, check_each, check_text

from .kernels import Kernels


@dataclass(frozen=True)
class ConverterOptions:
    """The options of the TensorFlow converter, in the names of `tf.lite`.

    >>> ConverterOptions(optimizations=("DEFAULT",), supported_types=("float16",)).supported_ops
    ('TFLITE_BUILTINS',)

    Attributes:
        optimizations: Members of `tf.lite.Optimize`, such as "DEFAULT".
        supported_ops: Members of `tf.lite.OpsSet`.
        supported_types: Types of the weights, such as "float16".
        input_type: Type that the file takes; None for the type of the model.
        output_type: Type that the file gives; None for the type of the model.
        per_channel_dense: Whether each unit of a Dense kernel may get a scale of its own.
        ranges: How a range is chosen from calibration samples: "mse", "minmax" or "percentile".
        bias_correction: Whether to take from each bias what rounding the kernel adds on average.
    """

    optimizations: tuple[str, ...] = ()
    supported_ops: tuple[str, ...] = ("TFLITE_BUILTINS",)
    supported_types: tuple[str, ...] = ()
    input_type: str | None = None
    output_type: str | None = None
    per_channel_dense: bool = True
    ranges: str = "minmax"
    bias_correction: bool = False

    def __post_init__(self) -> None:
        for name in ("optimizations", "supported_ops", "supported_types"):
            check_each(name, getattr(self, name), str, "a text")
        for name in ("input_type", "output_type"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name))
        check_bool("per_channel_dense", self.per_channel_dense)
        check_choice("ranges", self.ranges, CHOICES)
        check_bool("bias_correction", self.bias_correction)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for `json.dumps`."""
        return asdict(self)


@dataclass(frozen=True)
class Precision:
    """What the weights and activations of a file are stored and computed in.

    The base class of all precisions: a frozen dataclass each, whose fields are its options.
    `register_precision` makes it known to the command line.

    >>> from tfcompress.converters.precisions.registry import registered_precisions
    >>> @dataclass(frozen=True)
    ... class Float16Weights(Precision):
    ...     name: ClassVar[str] = "float16_weights"
    ...
    ...     def converter_options(self):
    ...         return ConverterOptions(optimizations=("DEFAULT",), supported_types=("float16",))
    >>> Float16Weights().name
    'float16_weights'

    Attributes:
        name: Name on the command line and in reports, such as "int8".
        needs_ranges: Whether the converter must know the ranges of the activations: from
            calibration samples or from fake-quantization in the model. Defaults to False.
        takes_fake_quantization: Whether a quantization-aware model converts to it. Defaults to
            False.
        integer: Whether all multiplications must be in integers: the finished file is searched for
            float ops, and `convert(strict=True)` refuses it if there are any. Defaults to False.
        mixes_with: Kind of the precisions that layers of one file may have beside this one:
            "integers" for int8 activations, "floats" for float ones; "" for none. Defaults to "".
        why_not_sparse: Why the file cannot be stored sparse; "" if it can. Defaults to "".
    """

    name: ClassVar[str]
    needs_ranges: ClassVar[bool] = False
    takes_fake_quantization: ClassVar[bool] = False
    integer: ClassVar[bool] = False
    mixes_with: ClassVar[str] = ""
    why_not_sparse: ClassVar[str] = ""

    def converter_options(self) -> ConverterOptions:
        """Return what the TensorFlow converter is asked for."""
        return ConverterOptions()

    def for_runtime(self, release: tuple[int, ...]) -> Precision:
        """Return the precision with options that a release of the runtime can read.

        Args:
            release: Its version, such as (2, 14).

        Returns:
            This precision, unless a subclass has options that an older runtime needs.
        """
        return self

    def calibration_data(self) -> tuple[Any, int | None] | None:
        """Return calibration samples and how many to use at most; None for no samples."""
        return None

    def kernels(self) -> Kernels | None:
        """Return how kernels of 4 bits are chosen and rounded; None for none of these."""
        return None

    def weights(self) -> dict[str, Any] | None:
        """Return how the pass `weight_only` stores weights; None for float32."""
        return None

    def equalizes(self) -> bool:
        """Return whether the model is equalized over the calibration samples before it is traced.

        See `tfcompress.equalize`.
        """
        return False

    def passes(self) -> tuple[Pass, ...]:
        """Return the rewrites of the converted file, in order."""
        return ()
