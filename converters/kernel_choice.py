"""Which kernels of a model a file stores in how many bits."""

from __future__ import annotations

from typing import Any

import keras

from tfcompress.converters.export.layer_names import layer_tree
from tfcompress.converters.precisions.base import Precision
from tfcompress.model.filters import Filters, matches, select_layers
from tfcompress.model.layers import walk


def kernel_request(model: keras.Model, precision: Precision) -> dict[str, Any] | None:
    """Return what the converter's process must know to choose the kernels of a file.

    Args:
        model: The model.
        precision: What was asked for.

    Returns:
        Plain values, ready for `json.dumps`: the options of `Precision.kernels`, where layers are
        paths, and the tree of layers by which their kernels are found. None if the precision
        stores all kernels alike.

    Raises:
        TypeError: Filters have the wrong type.
        ValueError: Filters select no layer.
    """
    options = precision.kernels()
    if options is None:
        return None
    keep = [] if options.keep is None else layer_paths(model, options.keep, "keep")
    return {
        "rounding": options.rounding,
        "ends": options.ends,
        "budget": options.budget,
        "keep": keep,
        "only": None,
        "tree": layer_tree(model),
    }


def layer_paths(model: keras.Model, filters: Filters, argument: str) -> list[str]:
    """Return the paths of the layers that filters select.

    Args:
        model: The model.
        filters: A regular expression, a list of layers or names, or a function of the layer.
        argument: Name of the argument, for the error.

    Returns:
        Paths below the model, each once.

    Raises:
        TypeError: `filters` has the wrong type.
        ValueError: It selects no layer.
    """
    places = [(path, lineage) for path, lineage in walk(model) if lineage]
    select_layers(model, filters, places, argument=argument)
    return [path for path, lineage in places if matches(filters, path, lineage)]
