"""What `convert` checks and makes ready before it traces the model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras

from tfcompress.converters.export.float32 import as_float32
from tfcompress.converters.passes.base import Pass
from tfcompress.converters.precisions.base import Precision
from tfcompress.converters.precisions.registry import check_precision
from tfcompress.edge.arguments import check_batch_size, refuse
from tfcompress.model.checks import check_built, check_finite
from tfcompress.model.errors import ModelError
from tfcompress.model.samples import Array, load_samples
from tfcompress.model.signature import Signature, signature

from .checks import check_output
from .errors import ConversionError
from .input_shapes import InputShapes, with_shapes
from .judgement import SAMPLES
from .kernel_choice import choose
from .odd_samples import integers_for_floats, unlike_normalization
from .sparse import Sparse

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Prepared:
    """A model that is ready to be traced.

    Attributes:
        model: The model in float32.
        call: Its inputs, and how to call it.
        samples: For each file the calibration samples by input name; None for no samples.
        judged_by: For each file the samples to judge it by; None for no samples.
        warnings: What is odd about the samples.
        kernels: For each file which kernels it stores in how many bits, as plain values; None where
            the converter decides.
        passes: For each file the passes over it.
    """

    model: keras.Model
    call: Signature
    samples: tuple[dict[str, Array] | None, ...]
    judged_by: tuple[dict[str, Array] | None, ...]
    warnings: tuple[str, ...]
    kernels: tuple[dict[str, Any] | None, ...]
    passes: tuple[tuple[Pass, ...], ...]

    def only(self, places: Sequence[int], model: keras.Model, call: Signature) -> Prepared:
        """Return what was made ready for some of the files, with another model to trace."""
        return replace(
            self,
            model=model,
            call=call,
            samples=tuple(self.samples[i] for i in places),
            judged_by=tuple(self.judged_by[i] for i in places),
            kernels=tuple(self.kernels[i] for i in places),
            passes=tuple(self.passes[i] for i in places),
        )


def check_files(
    files: Mapping[PathLike, Precision | str], sparse: Sparse | None, samples: Any = None
) -> dict[Path, Precision]:
    """Check the files that are asked for, before anything else happens.

    Args:
        files: Path -> precision.
        sparse: How to store zeros; None for dense files.
        samples: Calibration samples for precisions that are given by name. Defaults to None.

    Returns:
        The precisions by path.

    Raises:
        TypeError: A precision is neither a `Precision` nor a name.
        ValueError: A name is unknown, a path cannot be written, two are the same, or there is none.
        PermissionError: A folder may not be written in.
        ConversionError: `sparse` is given, and a precision has no sparse form.
    """
    wanted = "a dict of one or more different paths -> their precisions"
    if not isinstance(files, Mapping):
        refuse("files", wanted, files, TypeError)
    precisions = {
        check_output("path", path): check_precision(precision, samples)
        for path, precision in files.items()
    }
    if len(precisions) < len(files) or not files:
        refuse("files", wanted, files)
    for precision in precisions.values():
        if sparse is not None and precision.why_not_sparse:
            raise ConversionError(
                f"A {precision.name} file has no sparse form: {precision.why_not_sparse}."
            )
    return precisions


def prepare(
    model: keras.Model,
    precisions: Mapping[Path, Precision],
    batch_size: int | None,
    samples: Any = None,
    exceptions: Mapping[Path, Mapping[Any, Precision]] = MappingProxyType({}),
    input_shapes: InputShapes | None = None,
) -> Prepared:
    """Make a float32 model with a signature and checked calibration samples.

    Args:
        model: A built Keras model.
        precisions: The precisions by path.
        batch_size: Batch of the file; None for a free one.
        samples: Samples to judge the files by. Defaults to None: each by its calibration samples.
        exceptions: Path of a file -> the precisions of single layers in it. Defaults to none.
        input_shapes: Name of an input -> its shape in the files. Defaults to None: as in the model.

    Returns:
        What is to be traced.

    Raises:
        TypeError: `model` is no Keras 3 model.
        ValueError: `batch_size`, `input_shapes` or the samples cannot be used.
        ConversionError: The model is not built, holds NaN, or has no float32 form.
    """
    if batch_size is not None:
        batch_size = check_batch_size(batch_size)
    try:
        check_built(model)
        check_finite(model)
        wide = as_float32(model)
        call = signature(wide, batch_size)
        call = replace(call, inputs=with_shapes(call.inputs, input_shapes))
    except ModelError as error:
        raise ConversionError(str(error)) from error
    choices = [choose(wide, p, exceptions.get(path, {})) for path, p in precisions.items()]
    calibration = _calibration_samples(call, list(precisions.values()))
    judged_by = calibration
    if samples is not None:
        loaded = zip(precisions.values(), calibration, strict=True)
        same = [arrays for p, arrays in loaded if (p.calibration_data() or (None,))[0] is samples]
        # A generator is read once.
        some = same[0] if same else load_samples(samples, call.inputs, max_samples=SAMPLES)
        judged_by = (some,) * len(precisions)
    said = _odd_samples(wide, call, list(precisions.values()), calibration)
    return Prepared(
        wide,
        call,
        calibration,
        judged_by,
        tuple(said),
        tuple(choice.kernels for choice in choices),
        tuple(choice.passes for choice in choices),
    )


def _calibration_samples(
    call: Signature, precisions: list[Precision]
) -> tuple[dict[str, Array] | None, ...]:
    """Load the samples of each file. A generator that two files share is read once."""
    loaded: dict[tuple[int, int | None], dict[str, Array]] = {}
    result: list[dict[str, Array] | None] = []
    for precision in precisions:
        data = precision.calibration_data()
        if data is None:
            result.append(None)
            continue
        samples, max_samples = data
        key = (id(samples), max_samples)
        if key not in loaded:
            loaded[key] = load_samples(samples, call.inputs, max_samples=max_samples)
        result.append(loaded[key])
    return tuple(result)


def _odd_samples(
    model: keras.Model,
    call: Signature,
    precisions: list[Precision],
    loaded: tuple[dict[str, Array] | None, ...],
) -> list[str]:
    """Say what is odd about the calibration samples, each thing once."""
    said: list[str] = []
    for precision, arrays in zip(precisions, loaded, strict=True):
        data = precision.calibration_data()
        if data is not None and arrays is not None:
            said += integers_for_floats(model, call.inputs, data[0], arrays)
            said += unlike_normalization(model, call.inputs, arrays)
    return list(dict.fromkeys(said))
