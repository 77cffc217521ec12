"""Which weights of a model a file stores in how many bits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras

from tfcompress.converters.export.layer_names import layer_tree
from tfcompress.converters.passes.base import Pass
from tfcompress.converters.precisions.base import Precision
from tfcompress.converters.precisions.kernels import Kernels
from tfcompress.converters.precisions.registry import check_precision
from tfcompress.edge.arguments import check_path, refuse
from tfcompress.model.filters import Filters, matches, select_layers
from tfcompress.model.kernels import is_kernel
from tfcompress.model.layers import own_weights, walk

Exceptions = Mapping[Any, Precision | str]
"""Filters -> precision of the layers that they select, or its name."""


class Choice(NamedTuple):
    """What is done about the weights of a file.

    Attributes:
        kernels: What the converter's process must know to choose the kernels of 4 bits, as plain
            values: the options of `Kernels`, with layers as paths, and the tree of layers by which
            they are found. None if the converter decides.
        passes: The passes over the file.
    """

    kernels: dict[str, Any] | None
    passes: tuple[Pass, ...]


def check_exceptions(
    files: Mapping[Path, Precision],
    exceptions: Mapping[str | os.PathLike[str], Exceptions] | None,
) -> dict[Path, dict[Any, Precision]]:
    """Check the precisions of single layers, before anything else happens.

    Args:
        files: Path of each file -> the precision of the rest of it.
        exceptions: Path of a file -> its exceptions; None for none.

    Returns:
        The exceptions by path.

    Raises:
        TypeError: `exceptions` is no dict of dicts of precisions.
        ValueError: A precision cannot stand beside another one in a file, or a path is none of
            `files`.
    """
    wanted = "a dict of paths, each one of `files` -> dicts of filters -> precisions"
    if exceptions is None:
        return {}
    if not isinstance(exceptions, Mapping):
        refuse("precisions", wanted, exceptions, TypeError)
    found = {check_path("precisions", path).expanduser(): e for path, e in exceptions.items()}
    if not found or not found.keys() <= files.keys():
        refuse("precisions", wanted, exceptions)
    return {path: _check_single(files[path], single) for path, single in found.items()}


def _check_single(precision: Precision, exceptions: Exceptions) -> dict[Any, Precision]:
    wanted = "a dict of filters (a regular expression, a tuple of names, a function) -> precisions"
    if not isinstance(exceptions, Mapping):
        refuse("precisions", wanted, exceptions, TypeError)
    if not exceptions:
        refuse("precisions", wanted, exceptions)
    single = {filters: check_precision(other) for filters, other in exceptions.items()}
    for other in single.values():
        if not other.mixes_with or other.mixes_with != precision.mixes_with:
            raise ValueError(
                f"A layer cannot be {other.name} in a file of the precision {precision.name}. "
                "Int8() and Int4Weights() mix, since activations are int8 in both, and so do "
                "Float32() and WeightOnly(). "
                f"Received: precision={precision!r}, precisions={dict(exceptions)!r}"
            )
    return single


def choose(model: keras.Model, precision: Precision, exceptions: Mapping[Any, Precision]) -> Choice:
    """Find out what is done about the weights of a model.

    Args:
        model: The model.
        precision: What was asked for.
        exceptions: Filters -> precision of the layers that they select. The first that selects a
            layer counts.

    Returns:
        The choice.

    Raises:
        TypeError: Filters have the wrong type.
        ValueError: Filters select no layer with weights, or two roundings are asked for.
    """
    single: dict[str, Precision] = {}
    for filters, other in exceptions.items():
        chosen = list(filters) if isinstance(filters, tuple) else filters
        for path in layer_paths(model, chosen, "precisions"):
            single.setdefault(path, other)
    return Choice(
        _kernels(model, precision, single),
        (*precision.passes(), *weight_pass(model, precision, single)),
    )


def weight_pass(
    model: keras.Model, precision: Precision, single: Mapping[str, Precision]
) -> tuple[Pass, ...]:
    """Return the pass that stores the weights of a float file, if a precision asks for it.

    Args:
        model: The model.
        precision: What was asked for.
        single: Path of a layer -> its own precision.

    Returns:
        The pass, or nothing.

    Raises:
        ValueError: The weights of a layer are to be rounded by samples, and there are none.
    """
    default = precision.weights()
    if default is None and not (single and precision.mixes_with == "floats"):
        return ()
    layers = {path: other.weights() for path, other in single.items()}
    by_samples = any(form and form["rounding"] == "gptq" for form in layers.values())
    if by_samples and precision.calibration_data() is None:
        raise ValueError(
            "WeightOnly(rounding='gptq') for single layers takes the samples of the precision of "
            "the file, which has none: give the file WeightOnly(..., calibration=samples)"
        )
    options = {"default": default, "layers": layers, "tree": layer_tree(model)}
    return (Pass("weight_only", options),)


def _kernels(
    model: keras.Model, precision: Precision, single: Mapping[str, Precision]
) -> dict[str, Any] | None:
    options = precision.kernels()
    others = {path: other.kernels() for path, other in single.items()}
    narrow = [path for path, other in others.items() if other is not None]
    found: list[Kernels] = [o for o in (options, *others.values()) if o is not None]
    if not found:
        return None
    if len({o.rounding for o in found}) > 1:
        raise ValueError(
            "Int4Weights() has one rounding in a file, 'gptq' or 'nearest'. Received: both, in "
            "`precision` and `precisions`"
        )
    keep = [path for path in others if path not in narrow]
    if options is not None and options.keep is not None:
        keep += layer_paths(model, options.keep, "keep")
    return {
        "rounding": found[0].rounding,
        "ends": options is not None and options.ends and not single,
        "budget": None if options is None else options.budget,
        "keep": keep,
        "only": narrow if options is None else None,
        "tree": layer_tree(model),
    }


def layer_paths(model: keras.Model, filters: Filters, argument: str) -> list[str]:
    """Return the paths of the layers with weights that filters select.

    Args:
        model: The model.
        filters: A regular expression, a list of layers or names, or a function of the layer.
        argument: Name of the argument, for the error.

    Returns:
        Paths below the model, each once.

    Raises:
        TypeError: `filters` has the wrong type.
        ValueError: It selects no layer with weights.
    """
    places = [
        (path, lineage)
        for path, lineage in walk(model)
        if lineage and any(is_kernel(lineage[-1], weight) for weight in own_weights(lineage[-1]))
    ]
    select_layers(model, filters, places, kind="layer with a kernel", argument=argument)
    return [path for path, lineage in places if matches(filters, path, lineage)]
