"""The model that each file is made from: the user's, or an equalized one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from tfcompress.converters.errors import ConversionError
from tfcompress.converters.precisions.base import Precision
from tfcompress.converters.preparation import Prepared
from tfcompress.model.signature import signature

from .equalize import equalize

__all__ = ["by_model"]


def by_model(
    prepared: Prepared, precisions: Mapping[Path, Precision]
) -> Iterator[tuple[Prepared, dict[Path, Precision]]]:
    """Yield the files that are made from one model, with what is ready for them.

    Args:
        prepared: What was made ready for all files.
        precisions: The precisions by path.

    Yields:
        What is ready for some files, with the model to trace, and their precisions by path: first
        those of the model as it is, then those of a model for each set of samples.

    Raises:
        ConversionError: A model cannot be equalized.
    """
    places: dict[int | None, list[int]] = {}
    for place, precision in enumerate(precisions.values()):
        key = id(prepared.samples[place]) if precision.equalizes() else None
        places.setdefault(key, []).append(place)
    paths = list(precisions)
    for key in sorted(places, key=lambda key: key is not None):
        mine = places[key]
        model, call = prepared.model, prepared.call
        if key is not None:
            try:
                model = equalize(model, prepared.samples[mine[0]])
            except ValueError as error:
                raise ConversionError(
                    f"Model '{model.name}' cannot be equalized: {error} Leave `equalize` out."
                ) from error
            call = replace(call, call=signature(model).call)
        yield prepared.only(mine, model, call), {paths[i]: precisions[paths[i]] for i in mine}
