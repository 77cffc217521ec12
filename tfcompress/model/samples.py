"""Samples in any common form as one checked array for each model input, by name."""

from __future__ import annotations

import functools
import inspect
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfcompress.edge.arguments import check_function

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class InputSpec:
    """Name, shape and dtype of a model input.

    The batch comes first; None is a free dimension.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str


def load_samples(
    data: Any, inputs: Sequence[InputSpec], max_samples: int | None = None
) -> dict[str, Array]:
    """Return samples as arrays by the names of the model's inputs, checked.

    The order of a list is not enough: with several inputs, each array of a list must fit the input
    at its place and no other input. Else an error asks for a dict.

    >>> spec = InputSpec("image", (None, 4), "float32")
    >>> load_samples(np.ones((3, 4)), [spec])["image"].dtype
    dtype('float32')

    Args:
        data: An array (one input), a dict by input name, a generator, list or `tf.data.Dataset`
            of samples or batches (of (x, y), y is dropped), a function without arguments that
            returns one of these, or the path of an .npz or .npy file.
        inputs: The model's inputs.
        max_samples: Largest number of samples: evenly spaced ones of arrays, the first ones of an
            iterable. None (the default) takes all.

    Returns:
        For each input name an array with a leading sample axis, in the input's dtype.

    Raises:
        ValueError: Samples are missing, do not fit the inputs, or hold NaN or infinity.
        TypeError: `data` has another type.
    """
    if isinstance(data, str | os.PathLike):
        data = _read(Path(data), inputs)
    elif inspect.isroutine(data) or isinstance(data, functools.partial):
        data = check_function("samples", data)()
    if isinstance(data, Mapping) or _is_array(data):
        arrays = _by_name(data, inputs)
        for spec in inputs:
            _check_rank(arrays[spec.name], spec)
        arrays = thin(arrays, max_samples)
    elif isinstance(data, list | tuple) and len(inputs) > 1 and all(map(_is_array, data)):
        arrays = thin(_by_name(data, inputs), max_samples)
    elif isinstance(data, Iterable):
        arrays = _gather(_elements(data), inputs, max_samples)
    else:
        raise TypeError(
            "Samples must be an array, a dict of arrays by input name, a generator, a "
            f"tf.data.Dataset or the path of an .npz file. Received: {_describe(data)}"
        )
    return _checked(arrays, inputs)


def whole_batches(samples: Mapping[str, Array], batch: int) -> dict[str, Array]:
    """Return the samples with the first ones repeated until the last batch is full.

    >>> whole_batches({"x": np.array([1, 2, 3])}, 2)
    {'x': array([1, 2, 3, 1])}

    Args:
        samples: Arrays by name, all of one length of at least 1.
        batch: Number of samples in a batch.

    Returns:
        Arrays by name, of a length that is a multiple of `batch`.
    """
    return {
        name: array[np.arange(-(-len(array) // batch) * batch) % len(array)]
        if len(array) % batch
        else array
        for name, array in samples.items()
    }


def _is_array(data: object) -> bool:
    return hasattr(data, "__array__") and hasattr(data, "shape")


def _describe(data: object) -> str:
    if _is_array(data):
        array = np.asarray(data)
        return f"an array of shape {array.shape}, {array.dtype}"
    if isinstance(data, Mapping):
        return f"a dict with keys {sorted(map(str, data))}"
    if isinstance(data, list | tuple):
        return f"a {type(data).__name__} of {len(data)}"
    return f"{data!r} of type {type(data).__name__}"


def _names(inputs: Sequence[InputSpec]) -> str:
    return ", ".join(f"'{spec.name}' {spec.shape} {spec.dtype}" for spec in inputs)


def _read(path: Path, inputs: Sequence[InputSpec]) -> Any:
    try:
        with path.open("rb") as stream:  # NumPy would leave a damaged file open
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                return file
            keys = list(file)
            wanted = [spec.name for spec in inputs]
            if all(name in keys for name in wanted):
                return {name: file[name] for name in wanted}
            if len(inputs) == 1 and (len(keys) == 1 or "x" in keys):
                return file[keys[0] if len(keys) == 1 else "x"]
    except OSError as error:
        raise ValueError(f"Cannot read samples from '{path}': {error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"'{path}' is not an .npz or .npy file with plain numeric arrays: {error}"
        ) from error
    raise ValueError(
        f"'{path}' does not hold the model's inputs: {_names(inputs)}. "
        f"Received arrays: {', '.join(keys) or 'none'}. Name each after its input."
    )


def _by_name(data: Any, inputs: Sequence[InputSpec]) -> dict[str, Array]:
    """Return a dict of arrays from a dict, an array, or a list that fits in one way only."""
    if isinstance(data, Mapping):
        missing = [spec.name for spec in inputs if spec.name not in data]
        unknown = sorted(str(key) for key in set(data) - {spec.name for spec in inputs})
        if missing or unknown:
            raise ValueError(
                f"Samples must be named after the model's inputs: {_names(inputs)}. "
                f"Missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}"
            )
        return {spec.name: np.asarray(data[spec.name]) for spec in inputs}
    arrays = list(data) if isinstance(data, list | tuple) else [data]
    if len(arrays) != len(inputs):
        raise ValueError(
            f"The model has {len(inputs)} input(s): {_names(inputs)}. Pass a dict of arrays by "
            f"input name. Received: {_describe(data)}"
        )
    arrays = [np.asarray(array) for array in arrays]
    if len(inputs) > 1:
        for index, array in enumerate(arrays):
            fits = [spec.name for spec in inputs if _fits(array, spec)]
            if fits != [inputs[index].name]:
                raise ValueError(
                    f"A list does not say which array is for which input: the one at {index}, "
                    f"{_describe(array)}, fits {', '.join(fits) or 'no input'} of "
                    f"{_names(inputs)}. Pass a dict of arrays by input name."
                )
    return {spec.name: array for spec, array in zip(inputs, arrays, strict=True)}


def _fits(array: Array, spec: InputSpec) -> bool:
    inner = array.shape[-(len(spec.shape) - 1) :] if len(spec.shape) > 1 else ()
    return (
        len(array.shape) in (len(spec.shape), len(spec.shape) - 1)
        and all(b in (None, a) for a, b in zip(inner, spec.shape[1:], strict=True))
        and not (np.dtype(spec.dtype).kind in "iub" and array.dtype.kind == "f")
    )


def _elements(data: Iterable[Any]) -> Iterator[Any]:
    return iter(data.as_numpy_iterator() if hasattr(data, "as_numpy_iterator") else data)


def _gather(
    elements: Iterator[Any], inputs: Sequence[InputSpec], max_samples: int | None
) -> dict[str, Array]:
    parts: dict[str, list[Array]] = {spec.name: [] for spec in inputs}
    count = 0
    for element in elements:
        for spec, array in _element(element, inputs):
            if array.ndim == len(spec.shape) - 1:
                array = array[None]
            _check_rank(array, spec)
            if parts[spec.name] and parts[spec.name][0].shape[1:] != array.shape[1:]:
                raise ValueError(
                    f"Samples for input '{spec.name}' must all have one shape. Received: "
                    f"{parts[spec.name][0].shape[1:]} and {array.shape[1:]}"
                )
            parts[spec.name].append(array)
        count += len(parts[inputs[0].name][-1])
        if max_samples is not None and count >= max_samples:
            break
    if not count:
        raise ValueError("There are no samples: the data ended before it gave one.")
    arrays = {name: np.concatenate(list_) for name, list_ in parts.items()}
    return {name: array[:max_samples] for name, array in arrays.items()}


def _element(element: Any, inputs: Sequence[InputSpec]) -> list[tuple[InputSpec, Array]]:
    """Return the arrays of an iterable's item by input, without targets and sample weights."""
    if (
        isinstance(element, tuple)
        and element
        and (len(inputs) == 1 or isinstance(element[0], Mapping | list | tuple))
    ):
        element = element[0]
    if len(inputs) == 1 and isinstance(element, list) and not any(map(_is_array, element)):
        element = np.asarray(element)
    if not isinstance(element, Mapping | list | tuple):
        element = np.asarray(element)
    arrays = _by_name(element, inputs)
    return [(spec, arrays[spec.name]) for spec in inputs]


def thin(arrays: dict[str, Array], max_samples: int | None) -> dict[str, Array]:
    """Return evenly spaced samples, so that data that is sorted by class stays balanced.

    >>> thin({"x": np.arange(9)}, 3)["x"]
    array([0, 4, 8])

    Args:
        arrays: Samples by input name.
        max_samples: Largest number of samples; None for all.

    Returns:
        The arrays with so many rows; as they are if their numbers of rows differ.
    """
    count = min(len(array) for array in arrays.values())
    if max_samples is None or count <= max_samples or len({len(a) for a in arrays.values()}) > 1:
        return arrays
    rows = np.linspace(0, count - 1, max_samples).round().astype(int)
    return {name: array[rows] for name, array in arrays.items()}


def _check_rank(array: Array, spec: InputSpec) -> None:
    if array.ndim == len(spec.shape):
        return
    hint = ""
    if array.ndim == len(spec.shape) - 1 and _fits(array, spec):
        hint = " The batch axis is missing: for a single sample, pass `sample[None]`."
    raise ValueError(
        f"Samples for input '{spec.name}' must have shape {spec.shape}. "
        f"Received: {_describe(array)}.{hint}"
    )


def _checked(arrays: dict[str, Array], inputs: Sequence[InputSpec]) -> dict[str, Array]:
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"All inputs must have as many samples. Received: {counts}")
    if not all(counts.values()):
        raise ValueError(f"There are no samples. Received: {_describe(arrays[inputs[0].name])}")
    return {spec.name: _cast(arrays[spec.name], spec) for spec in inputs}


def _cast(array: Array, spec: InputSpec) -> Array:
    _check_rank(array, spec)
    if not all(b in (None, a) for a, b in zip(array.shape[1:], spec.shape[1:], strict=True)):
        raise ValueError(
            f"Samples for input '{spec.name}' must have shape {spec.shape}. "
            f"Received: {_describe(array)}"
        )
    wanted = np.dtype(spec.dtype)
    kinds = {"f": "fiub", "i": "iub", "u": "iub", "b": "b"}.get(wanted.kind, wanted.kind)
    if array.dtype.kind not in kinds:
        raise ValueError(
            f"Samples for input '{spec.name}' must be {spec.dtype}. Received: {array.dtype}"
        )
    if wanted.kind in "iu" and array.size:
        limits = np.iinfo(wanted)
        if array.min() < limits.min or array.max() > limits.max:
            raise ValueError(
                f"Samples for input '{spec.name}' do not fit {spec.dtype}: they range from "
                f"{array.min()} to {array.max()}"
            )
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, wanted)
    if wanted.kind == "f" and not np.isfinite(array).all():
        bad = ~np.isfinite(array)
        raise ValueError(
            f"Samples for input '{spec.name}' hold {int(bad.sum())} NaN or infinite value(s), "
            f"the first in sample {int(np.argwhere(bad)[0][0])}. Remove them."
        )
    return array
