"""One file with a signature for each of several shapes of the inputs; weights are stored once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import keras

from tfcompress.converters.file.model import Inspection
from tfcompress.converters.precisions.base import Precision
from tfcompress.edge.arguments import refuse
from tfcompress.edge.system.scratch import scratch_folder
from tfcompress.model.checks import check_built
from tfcompress.model.errors import ModelError
from tfcompress.model.samples import InputSpec
from tfcompress.model.signature import signature

from .converted import Converted
from .errors import ConversionError
from .hybrid import speed_notes
from .input_shapes import InputShapes, with_shapes
from .rewriting import ask
from .sparse import Sparse

__all__ = ["Made", "check_several", "join", "signature_keys"]


class Made(NamedTuple):
    """Files that are finished, and not written yet.

    Attributes:
        converted: What to say about each.
        content: Path -> the bytes of each, in the same order.
        said: What to warn of.
    """

    converted: list[Converted]
    content: dict[Path, bytes]
    said: list[str]


def signature_keys(shapes: Sequence[Sequence[InputSpec]]) -> list[str]:
    """Return names of signatures that say in which sizes they differ.

    >>> short, long = ([InputSpec("words", (1, n), "int32")] for n in (32, 128))
    >>> signature_keys([short, long])
    ['serving_32', 'serving_128']

    Args:
        shapes: For each signature the inputs with their shapes.

    Returns:
        A name for each: "serving", and the sizes that are not the same in all. Sizes of one input
        are joined by "x"; inputs that differ in other sizes follow, each after an underscore.

    Raises:
        ValueError: There are fewer than two, or two are the same.
    """
    columns: list[tuple[str, ...]] = []
    for inputs in zip(*shapes, strict=True):
        sizes = list(zip(*(spec.shape for spec in inputs), strict=True))
        differing = [axis for axis in sizes if len(set(axis)) > 1]
        column = tuple(
            "x".join("any" if size is None else str(size) for size in row)
            for row in zip(*differing, strict=True)
        )
        if column and column not in columns:
            columns.append(column)
    keys = ["_".join(("serving", *parts)) for parts in zip(*columns, strict=True)]
    if len(set(keys)) < max(2, len(shapes)):
        given = [{spec.name: spec.shape for spec in inputs} for inputs in shapes]
        refuse("input_shapes", "a list of two or more shapes that all differ", given)
    return keys


def check_several(
    model: keras.Model,
    input_shapes: Sequence[InputShapes],
    batch_size: int | None,
    precisions: Mapping[Path, Precision],
    sparse: Sparse | None,
    samples: Any,
) -> list[str]:
    """Check that a model can be converted at several shapes, before anything is traced.

    Args:
        model: A built Keras model.
        input_shapes: The shapes.
        batch_size: Batch of the file; None for the one that the shapes have.
        precisions: The precisions by path.
        sparse: How to store zeros; must be None.
        samples: Samples to judge the files by; must be None.

    Returns:
        The name of the signature for each.

    Raises:
        TypeError: `input_shapes` is no list, or a shape is no dict.
        ValueError: The shapes are not different ones of this model, or something was given that
            fits one of them only.
        ConversionError: The model is not built.
    """
    if not isinstance(input_shapes, list | tuple):
        wanted = "a dict of input names -> shapes, or a list of such dicts"
        refuse("input_shapes", wanted, input_shapes, TypeError)
    try:
        inputs = signature(check_built(model), batch_size).inputs
    except ModelError as error:
        raise ConversionError(str(error)) from error
    keys = signature_keys([with_shapes(inputs, shapes) for shapes in input_shapes])
    calibrated = [p for p in precisions.values() if p.calibration_data() is not None]
    given = [
        *(type(p).__name__ for p in calibrated),
        *(["samples="] if samples is not None else []),
    ]
    if given:
        raise ValueError(
            f"Samples have one shape, and `input_shapes` names {len(keys)}. Received: "
            f"{' and '.join(given)} with samples. Use a precision that needs none, such as "
            "DynamicInt8(), or a model of quantize_aware; then judge each signature: "
            f"verify(model, file, samples, signature={keys[0]!r})."
        )
    if sparse is not None:
        raise ValueError(
            "A file with several signatures cannot store zeros in fewer bytes. Received: "
            f"sparse={sparse!r}, and {len(keys)} shapes in `input_shapes`."
        )
    return keys


def join(parts: Sequence[Made], keys: Sequence[str], timeout: float | None) -> Made:
    """Put the files of each shape into one for each path.

    Args:
        parts: The files at each shape.
        keys: The signature of each shape.
        timeout: Seconds for each child process; None for no limit.

    Returns:
        The files, each compared with those that it was made from.

    Raises:
        ConversionError: A file cannot be joined, or computes something else afterwards.
    """
    content, converted = {}, []
    for index, path in enumerate(parts[0].content):
        with scratch_folder() as folder:
            paths = [folder / f"{number}.tflite" for number in range(len(parts))]
            for place, part in zip(paths, parts, strict=True):
                place.write_bytes(part.content[path])
            out = folder / "joined.tflite"
            request = {"paths": list(map(str, paths)), "keys": list(keys), "out": str(out)}
            failed = f"{path.name} was not joined from its {len(parts)} shapes"
            reply = ask("jobs.join", request, folder, timeout, failed)
            if "refused" in reply:
                raise ConversionError(f"{failed}: a part {reply['refused']}.")
            found = Inspection.from_description(out, reply["file"])
            if found.load_error or reply["difference"]:
                raise ConversionError(f"{failed}: {found.load_error or reply['difference']}")
            content[path] = out.read_bytes()
        converted.append(_together([part.converted[index] for part in parts], found))
    said = list(dict.fromkeys(text for part in parts for text in part.said))
    return Made(converted, content, said)


def _together(parts: Sequence[Converted], found: Inspection) -> Converted:
    """Return what to say about a file: all that is true of one of its signatures."""

    def all_of(field: str) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(value for part in parts for value in getattr(part, field)))

    return replace(
        parts[0],
        bytes=found.bytes,
        float_macs=all_of("float_macs"),
        float_casts=all_of("float_casts"),
        kept_float=all_of("kept_float"),
        kept_weights={k: why for part in parts for k, why in part.kept_weights.items()},
        notes=speed_notes(found),
    )
