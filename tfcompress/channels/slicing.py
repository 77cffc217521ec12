"""Build a smaller model: slice the weights, and change the sizes in the configs of the layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfcompress.model.dependency.axes import index_parts
from tfcompress.model.dependency.units import FIXED, Coupling, Ids, Member
from tfcompress.model.graph import Node
from tfcompress.model.rebuild import copy_layer, from_config, rebuild_layers, warn_of_untied

__all__ = ["kept_shape", "kept_units", "remove_units"]

Keep = npt.NDArray[np.bool_]


def remove_units(
    model: keras.Model,
    coupling: Coupling,
    removed: Ids,
    replaced: Mapping[int, npt.NDArray[Any]] | None = None,
) -> keras.Model:
    """Return a copy of a model without some units.

    Args:
        model: The model that `coupling` was found in. It stays as it is.
        coupling: Says which axes of weights and which sizes belong to which units.
        removed: Numbers of the units to remove, taken from `ChannelGroup.roots`.
        replaced: New values of weights, before units are removed, by `id(variable)`. Defaults to
            None: all weights stay as they are.

    Returns:
        A functional model, not compiled.
    """
    warn_of_untied(model)
    return rebuild_layers(model, _Slicer(coupling, removed, replaced or {}).copy)


def kept_units(roots: Ids, removed: Ids) -> Keep:
    """Return for each unit whether it is kept.

    Args:
        roots: The roots of all units, from `Coupling.roots`.
        removed: The units to remove.

    Returns:
        Array of bools.
    """
    keep: Keep = ~np.isin(roots, removed)
    keep[FIXED] = True
    return keep


def kept_shape(variable: keras.Variable, axes: list[Member], keep: Keep) -> tuple[int, ...]:
    """Return the shape of a weight when only some units are kept.

    Args:
        variable: The weight.
        axes: The axes of the weight that run over units.
        keep: For each unit, whether it is kept.

    Returns:
        Tuple of ints.
    """
    shape = list(variable.shape)
    for member in axes:
        shape[member.axis] = int(keep[member.ids].sum())
    return tuple(shape)


class _Slicer:
    def __init__(
        self, coupling: Coupling, removed: Ids, replaced: Mapping[int, npt.NDArray[Any]]
    ) -> None:
        self.coupling = coupling
        self.replaced = replaced
        self.keep = kept_units(coupling.roots(), removed)
        self.members = coupling.by_variable()

    def copy(self, node: Node, args: Any, kwargs: Any) -> Any:
        operation = node.operation
        if type(operation).__name__ == "GetItem":
            return partial(self.get_item, node)
        sizes = self.coupling.sizes.get(id(operation), {})
        changed = {entry: ids for entry, ids in sizes.items() if not self.keep[ids].all()}
        if not isinstance(operation, keras.layers.Layer):
            return self.operation(operation, changed) if changed else operation
        config = _unbuilt(operation.get_config())
        for entry, ids in changed.items():
            self.set(config, entry, int(self.keep[ids].sum()))
        if not changed and not any(id(v) in self.members for v in operation.variables):
            return copy_layer(operation, args, kwargs)
        return from_config(operation, config, args, kwargs, self.value)

    def operation(self, operation: Any, changed: dict[tuple[str | int, ...], Ids]) -> Any:
        config = operation.get_config()
        sections = config.get("indices_or_sections")
        if sections is not None:
            # The parts of a tensor that was split evenly may now differ in size.
            *ends, _ = self.coupling.sizes[id(operation)].values()
            config["indices_or_sections"] = [int(self.keep[ids].sum()) for ids in ends]
        else:
            for entry, ids in changed.items():
                self.set(config, entry, int(self.keep[ids].sum()))
        return type(operation).from_config(config)

    def set(self, config: Any, entry: tuple[str | int, ...], size: int) -> None:
        """Set an entry of a config, however deep."""
        name, *rest = entry
        if not rest:
            config[name] = size
            return
        if isinstance(rest[0], int):
            if config[name] is None:  # attention's `output_shape`: that of the query
                config[name] = [None] * (rest[0] + 1)
            elif isinstance(config[name], int):
                config[name] = [config[name]]
            else:
                config[name] = list(config[name])
        if name in config:
            self.set(config[name], tuple(rest), size)

    def value(self, variable: keras.Variable) -> npt.NDArray[Any]:
        """Return a weight without the units that are removed."""
        array = self.replaced.get(id(variable))
        if array is None:
            array = np.asarray(keras.ops.convert_to_numpy(variable))
        for member in self.members.get(id(variable), []):
            array = np.compress(self.keep[member.ids], array, member.axis)
        if id(variable) in self.coupling.scaled:
            ids = self.coupling.scaled[id(variable)]
            array = (array * math.sqrt(self.keep[ids].mean())).astype(array.dtype)
        return array

    def get_item(self, node: Node, x: Any, key: Any) -> Any:
        slices = self.coupling.slices
        axes = {axis: slices[call, axis] for call, axis in slices if call == id(node.call)}
        if not axes:
            return x[key]
        parts = index_parts(key, len(x.shape))
        places = [place for place, part in enumerate(parts) if part is not None]
        for axis, ids in axes.items():
            start, stop, _ = parts[places[axis]].indices(len(ids))
            before = np.concatenate([[0], np.cumsum(self.keep[ids])])
            parts[places[axis]] = slice(int(before[start]), int(before[max(start, stop)]))
        return x[tuple(parts)]


def _unbuilt(config: Any) -> Any:
    """Return a config without the shapes that inner layers were built with."""
    if not isinstance(config, dict):
        return config
    return {key: _unbuilt(value) for key, value in config.items() if key != "build_config"}
