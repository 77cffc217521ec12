"""Inputs and outputs of a file: names, shapes, types, and quantization."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a .tflite file.

    >>> from tfcompress import edge
    >>> print(edge.TensorInfo("image", (None, 28, 28, 1), np.dtype("float32")))
    'image': float32 (any, 28, 28, 1)

    Attributes:
        name: Its name in the signature; in a file without signatures, the tensor's name.
        shape: Its shape; None for a dimension of any size.
        dtype: Its type in the file; of kind "S" for strings, which are arrays of bytes objects.
        scale: Real value of one integer step; None for a tensor that is not quantized.
        zero_point: The integer that represents 0.0; None for a tensor that is not quantized.
        index: The tensor's index in its subgraph.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]
    scale: float | None = None
    zero_point: int | None = None
    index: int = -1

    @property
    def quantized(self) -> bool:
        """Return whether the integers in the file represent real numbers."""
        return self.scale is not None

    def __str__(self) -> str:
        shape = ", ".join("any" if size is None else str(size) for size in self.shape)
        return f"{self.name!r}: {'string' if self.dtype.kind == 'S' else self.dtype} ({shape})"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**vars(self), "dtype": self.dtype.str}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "TensorInfo":
        """Build the description from what `to_dict` returned."""
        return cls(**{**data, "dtype": np.dtype(data["dtype"]), "shape": tuple(data["shape"])})

    @classmethod
    def from_details(cls, name: str, details: dict[str, Any]) -> "TensorInfo":
        """Read the dictionary that LiteRT's Interpreter gives for a tensor."""
        signature = details.get("shape_signature", details["shape"])
        if len(signature) != len(details["shape"]):
            signature = details["shape"]
        parameters = details["quantization_parameters"]
        quantized = len(parameters["scales"]) == 1
        return cls(
            name=name,
            shape=tuple(None if size < 0 else int(size) for size in signature),
            dtype=np.dtype(details["dtype"]),
            scale=float(parameters["scales"][0]) if quantized else None,
            zero_point=int(parameters["zero_points"][0]) if quantized else None,
            index=int(details["index"]),
        )


def natural_order(name: str) -> list[tuple[int, str]]:
    """Return a sort key by which `output_2` comes before `output_10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def quantize(values: Array, info: TensorInfo) -> Array:
    """Convert real numbers to the integers of a quantized tensor.

    `q = clip(round(x / scale) + zero_point)` in float32, with halves rounded to the even integer,
    as XNNPACK's QUANTIZE op does it. LiteRT's reference kernels round halves away from zero. Values
    outside the range saturate.

    >>> import numpy as np
    >>> from tfcompress.edge.tensors import TensorInfo, quantize
    >>> info = TensorInfo("x", (5,), np.dtype("int8"), scale=0.5, zero_point=3)
    >>> quantize(np.array([0.0, 0.25, 0.75, -1.0, 1e9], "float32"), info)
    array([  3,   3,   5,   1, 127], dtype=int8)

    Args:
        values: Real numbers of any shape.
        info: The quantized tensor, with `scale` and `zero_point`.

    Returns:
        An array of `info.dtype`, of the same shape.

    Raises:
        ValueError: A value is NaN, which no integer represents.
    """
    real = np.asarray(values, np.float32)
    if np.isnan(real).any():
        raise ValueError(f"Input {info.name!r} holds NaN, which {info.dtype} cannot represent")
    limits = np.iinfo(info.dtype)
    with np.errstate(over="ignore"):
        steps = np.rint(real / np.float32(info.scale)) + np.float32(info.zero_point)
    clipped: Array = np.clip(steps, limits.min, limits.max).astype(info.dtype)
    return clipped


def dequantize(values: Array, info: TensorInfo) -> Array:
    """Convert the integers of a quantized tensor to real numbers: `(q - zero_point) * scale`.

    Args:
        values: Integers of `info.dtype`, of any shape.
        info: The quantized tensor, with `scale` and `zero_point`.

    Returns:
        A float32 array of the same shape.
    """
    steps = values.astype(np.int32) - np.int32(info.zero_point or 0)
    return steps.astype(np.float32) * np.float32(info.scale)
