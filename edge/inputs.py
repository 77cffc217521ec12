"""What users give as inputs -> arrays of the file's own types."""

import os
from collections.abc import Iterable, Mapping

import numpy as np

from .tensors import Array, TensorInfo, quantize


def convert(array: Array, info: TensorInfo, raw: bool) -> Array:
    """Convert an array that a user gave to the type that the file takes.

    Args:
        array: The array.
        info: The input.
        raw: Whether the array has the file's own type, also where that stands for real numbers.

    Returns:
        An array of the file's own type; of bytes objects for strings.

    Raises:
        TypeError: It has another type.
        ValueError: The file's type cannot hold its values.
    """
    if info.dtype.kind == "S":
        return _strings(array, info)
    if raw or not info.quantized:
        if array.dtype == info.dtype:
            return array
        if not raw and info.dtype.kind == "f" and array.dtype.kind == "f":
            return array.astype(info.dtype)
        # np.asarray makes int64 of a list of Python integers.
        if not raw and info.dtype.kind in "iu" and array.dtype.kind in "iu":
            limits = np.iinfo(info.dtype)
            if array.size == 0 or (array.min() >= limits.min and array.max() <= limits.max):
                return array.astype(info.dtype)
            raise ValueError(f"Input {info} cannot hold {array.min()} to {array.max()}")
        raise TypeError(
            f"Input {info.name!r} must be {info.dtype}. Received: {array.dtype}. "
            f"Convert it with .astype({info.dtype.name!r})"
        )
    if array.dtype.kind != "f":
        hint = (
            "if these are the file's own integers, pass raw=True; if they are real numbers, use"
            if array.dtype == info.dtype
            else "use"
        )
        raise TypeError(
            f"Input {info.name!r} is quantized to {info.dtype} inside the file and takes real "
            f"numbers. Received: {array.dtype}; {hint} .astype('float32')"
        )
    return quantize(array, info)


def as_real(arrays: Mapping[str, Array], inputs: Iterable[TensorInfo]) -> dict[str, Array]:
    """Return samples in the form that `Runner` takes: real numbers for a quantized input.

    Args:
        arrays: Samples by input name.
        inputs: The inputs of the file.

    Returns:
        The arrays; those for quantized inputs as float32.
    """
    quantized = {info.name for info in inputs if info.quantized}
    return {
        name: array.astype("float32") if name in quantized else array
        for name, array in arrays.items()
    }


def _strings(array: Array, info: TensorInfo) -> Array:
    """Return an array of bytes objects, which is what the runtime takes and gives."""
    found = np.empty(array.size, object)
    for index, item in enumerate(array.flat):
        if not isinstance(item, str | bytes):
            raise TypeError(
                f"Input {info.name!r} must be strings, as str or bytes. Received: "
                f"{item!r} in an array of {array.dtype}"
            )
        found[index] = item.encode() if isinstance(item, str) else bytes(item)
    return found.reshape(array.shape)


def check_shape(shape: tuple[int, ...], info: TensorInfo, path: os.PathLike[str]) -> None:
    """Check that an input takes a shape.

    Args:
        shape: The shape of an array; its rows may be a multiple of a fixed batch.
        info: The input.
        path: The file, for the error.

    Raises:
        ValueError: It does not.
    """
    fits = len(shape) == len(info.shape) and all(
        size > 0
        and (wanted is None or size == wanted or (axis == 0 and wanted and size % wanted == 0))
        for axis, (size, wanted) in enumerate(zip(shape, info.shape, strict=True))
    )
    if fits:
        return
    wanted = ", ".join("any" if size is None else str(size) for size in info.shape)
    hint = ""
    if len(shape) == len(info.shape) - 1:
        hint = " The batch dimension is missing: add it with x[None]"
    elif len(shape) == len(info.shape) and shape and info.shape[0] and shape[0] % info.shape[0]:
        hint = f" The number of rows must be a multiple of {info.shape[0]}, the file's fixed batch"
    raise ValueError(
        f"Input {info.name!r} of {os.fspath(path)} has shape ({wanted}). Received: {shape}.{hint}"
    )


def random_inputs(inputs: Iterable[TensorInfo], seed: int) -> dict[str, Array]:
    """Return inputs of the file's own types by name; free sizes become 1.

    Real numbers are standard normal; quantized integers are uniform over their type; other integers
    are 0 or 1, which are valid indices almost everywhere.
    """
    rng = np.random.default_rng(seed)
    return {info.name: _random(rng, info) for info in inputs}


def _random(rng: np.random.Generator, info: TensorInfo) -> Array:
    shape = tuple(1 if size is None else size for size in info.shape)
    if info.quantized:
        limits = np.iinfo(info.dtype)
        return rng.integers(limits.min, limits.max, shape, dtype=info.dtype, endpoint=True)
    if info.dtype.kind == "f":
        return rng.standard_normal(shape).astype(info.dtype)
    if info.dtype.kind in "iub":
        return rng.integers(0, 2, shape).astype(info.dtype)
    raise TypeError(f"Input {info}: give inputs=, there are no random values of this type")
