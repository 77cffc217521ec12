"""What the weights and the activations of a file are stored and computed in: one config each."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

IO_TYPES = ("float32", "int8", "uint8")


@dataclass(frozen=True)
class Float32:
    """Weights and activations stay float32.

    The reference: nothing is lost but what another order of additions costs.

    Example:
    >>> Float32().name
    'float32'
    """

    name: ClassVar[str] = "float32"


@dataclass(frozen=True)
class Float16:
    """Weights are rounded to float16, half the bytes; the CPU computes in float32.

    A GPU delegate computes in float16 itself, where it has that.

    Example:
    >>> Float16().name
    'float16'
    """

    name: ClassVar[str] = "float16"


@dataclass(frozen=True)
class DynamicInt8:
    """Weights are int8, a quarter of the bytes; activations are quantized on the fly, per run.

    Needs no data. The converter leaves a kernel of less than 1024 elements in float32.

    Example:
    >>> DynamicInt8().name
    'dynamic_int8'
    """

    name: ClassVar[str] = "dynamic_int8"


@dataclass(frozen=True)
class Int8:
    """Weights and activations are int8: the smallest and, on most CPUs, the fastest.

    Weights are symmetric per output channel, activations asymmetric per tensor, after Jacob et
    al. 2018 (https://arxiv.org/abs/1712.05877) and the TFLite 8-bit specification. The ranges of
    the activations are read off `calibration`, samples of what the model will meet.

    Example:
    >>> import numpy as np
    >>> Int8(calibration=np.zeros((8, 4), "float32"), io="int8")
    Int8(io='int8', max_samples=500)

    Args:
        calibration: An array (one input), a dict of arrays by input name, a generator or
            `tf.data.Dataset` of either (with or without targets), or the path of an .npz file
            with such arrays. A leading batch axis, as for `model.predict`. None for a model that
            holds its ranges already, from `tfcompress.quantize_aware`, and only for such a one.
        io: What the file takes and gives: "float32" (quantized inside), "int8" or "uint8".
            Integer inputs, such as token ids, stay what they are. Defaults to "float32".
        max_samples: At most this many samples are used: evenly spaced ones of an array, the first
            ones of a generator or dataset. Defaults to 500.

    Raises:
        ValueError: `io` is none of the three, `max_samples` is not positive, or there is no file
            at the path given as `calibration`.
    """

    calibration: Any = field(default=None, repr=False, compare=False)
    io: str = "float32"
    max_samples: int = 500

    name: ClassVar[str] = "int8"

    def __post_init__(self) -> None:
        if self.io not in IO_TYPES:
            raise ValueError(f"io must be one of {', '.join(IO_TYPES)}. Received: io={self.io!r}")
        if not isinstance(self.max_samples, int) or self.max_samples < 1:
            raise ValueError(
                "max_samples must be a positive whole number. "
                f"Received: max_samples={self.max_samples!r}"
            )
        if isinstance(self.calibration, str | os.PathLike) and not Path(self.calibration).is_file():
            raise ValueError(
                "There is no file with calibration samples. "
                f"Received: calibration={os.fspath(self.calibration)!r}"
            )


Precision = Float32 | Float16 | DynamicInt8 | Int8


def check_precision(precision: object) -> Precision:
    """The same precision, or an error that says what one looks like."""
    if isinstance(precision, Precision):
        return precision
    choices = "Float32(), Float16(), DynamicInt8(), Int8(calibration=samples)"
    hint = ""
    if isinstance(precision, type) and issubclass(precision, Precision):
        hint = f" That is the class: add parentheses, {precision.__name__}()."
    raise TypeError(f"precision must be one of {choices}. Received: precision={precision!r}.{hint}")
