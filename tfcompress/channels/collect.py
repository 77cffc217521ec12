"""`channel_groups`: follow the graph of a model, and collect what the rule for each layer says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import keras
import numpy as np

from tfcompress.channels.groups import ChannelGroup, ChannelGroups, GroupMember
from tfcompress.edge.arguments import check_choice
from tfcompress.model.dependency.call import Rule, keep_all
from tfcompress.model.dependency.follow import fix_unselected, follow
from tfcompress.model.dependency.layers import rule_of
from tfcompress.model.dependency.operations import OPERATIONS
from tfcompress.model.dependency.units import (
    FIXED,
    Coupling,
    Ids,
    Labelled,
    Labels,
    Source,
    fixed,
)
from tfcompress.model.filters import Filters, check
from tfcompress.model.functionalize import with_graph
from tfcompress.model.graph import Node, functional
from tfcompress.model.kernels import kernels_of
from tfcompress.model.quantized import is_quantized

__all__ = ["Attention", "channel_groups"]

Attention: TypeAlias = Literal["heads", "width"]
"""Whether attention loses whole heads (`"heads"`), or width of each head (`"width"`)."""


def channel_groups(
    model: keras.Model, filters: Filters = None, attention: Attention = "heads"
) -> ChannelGroups:
    """Find which channels, units and heads of a model can be cut, and what goes with each.

    A channel that one layer makes is read by others. Where two channels meet, in a residual
    addition for instance, they can only be cut together. The graph is followed from layer to layer,
    and a rule for each layer relates its axes to those of its inputs. Channels that are related are
    a group. Nothing is cut from the outputs of the model, from tensors that pass through a layer
    without a rule, or from axes that are summed over, sliced with a step, or put through a softmax.

    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(8, name="a"), keras.layers.Dense(2, name="b")])
    >>> for group in channel_groups(model):
    ...     print(group)
    8 units of a; read by b
    2 units of b; read by none; kept: it is an output of the model

    Args:
        model: A built model; subclassed, if its `call` can be traced.
        filters: Layers that may lose outputs: a regular expression searched in the layer's path, a
            list of layers or names, or a function of the layer. Defaults to all.
        attention: Whether attention loses whole heads (`"heads"`, the default), or width of each
            head (`"width"`).

    Returns:
        `ChannelGroups`, which prints as a table.

    Raises:
        TypeError: If `model` is no Keras model, or `filters` has the wrong type.
        ValueError: If the model is not built, cannot be traced, or is quantization-aware; or if
            `filters` or one of its entries selects no layer that makes channels.

    Reference:
        Fang et al., "DepGraph: Towards Any Structural Pruning", https://arxiv.org/abs/2301.12900.
    """
    check_choice("attention", attention, ("heads", "width"))
    check(filters)
    model = with_graph(model)
    if is_quantized(model):
        raise ValueError(
            f"The model {model.name!r} is quantization-aware. Cut channels before "
            "`quantize_aware`, or from what `strip` gives back."
        )
    coupling = Coupling()
    inputs = [fixed(tensor.shape) for tensor in functional(model).inputs]

    def note(node: Node, path: str, given: list[Labelled], results: list[Labels]) -> None:
        operation = node.operation
        if isinstance(operation, keras.layers.Layer) and kernels_of(operation):
            first = coupling.paths.setdefault(id(operation), path)
            coupling.tensors += [
                (first, key, labels[-1])
                for key, labels in zip(node.inputs, given, strict=True)
                if labels[-1] is not None
            ]
        for labels in results:
            coupling.axes += [ids for ids in labels if ids is not None and FIXED not in ids]

    for labels in follow(coupling, model, inputs, _rule, note):
        for ids in labels:
            coupling.fix(ids, "it is an output of the model")
    for source in coupling.sources:
        part = source.kind.endswith("width") and source.kind != "width"
        if (part and attention == "heads") or (source.kind == "heads" and attention == "width"):
            coupling.fix(source.ids, f"attention={attention!r}")
    fix_unselected(coupling, model, filters, "layer that makes channels")
    return ChannelGroups(model, tuple(_groups(coupling)), coupling)


def _rule(operation: object) -> Rule:
    if isinstance(operation, keras.layers.Layer):
        return rule_of(operation)
    return OPERATIONS.get(type(operation).__name__, keep_all)


def _groups(coupling: Coupling) -> Iterator[ChannelGroup]:
    roots, reasons = coupling.roots(), coupling.reasons()
    owner, number = np.full(len(roots), -1), np.full(len(roots), -1)
    found: list[tuple[list[Source], Ids, str | None]] = []
    for sources in _together(coupling.sources, roots):
        units = np.unique(np.concatenate([roots[source.ids] for source in sources]))
        free = np.array([unit for unit in units.tolist() if unit not in reasons], np.int64)
        why = None
        if len(free) < 2:
            why = next((reasons[unit] for unit in units.tolist() if unit in reasons), "one unit")
            free = units
        owner[free], number[free] = len(found), np.arange(len(free))
        found.append((sources, free, why))

    def by_group(ids: Ids) -> Iterator[tuple[int, Ids]]:
        """Yield the groups along an axis, and for each the index of the unit at each position."""
        owners = np.where(ids == FIXED, -1, owner[roots[ids]])
        for group in np.unique(owners[owners >= 0]).tolist():
            yield group, np.where(owners == group, number[roots[ids]], -1)

    members: list[list[GroupMember]] = [[] for _ in found]
    for m in coupling.members.values():
        for group, units in by_group(m.ids):
            members[group].append(GroupMember(m.path, m.layer, m.variable, m.axis, m.role, units))
    # A depthwise kernel only hands each channel on; units count where a kernel mixes them.
    readers = {m.path for m in coupling.members.values() if m.role == "input"}
    tensors: list[list[tuple[int, Ids]]] = [[] for _ in found]
    for path, key, ids in coupling.tensors:
        for group, units in by_group(ids) if path in readers else ():
            tensors[group].append((key, units))
    normalized = {int(owner[roots[i]]): path for i, path in coupling.normalized.items()}
    for group, (sources, free, why) in enumerate(found):
        kinds = {source.kind for source in sources}
        yield ChannelGroup(
            kinds.pop() if len(kinds) == 1 else "channels",
            len(free),
            tuple(dict.fromkeys(source.path for source in sources)),
            tuple(dict.fromkeys(m.path for m in members[group] if m.role == "input")),
            tuple(members[group]),
            tuple(tensors[group]),
            why,
            normalized.get(group),
            free,
        )


def _together(sources: Sequence[Source], roots: Ids) -> list[list[Source]]:
    """Return lists of sources that share a unit, in the order of the model."""
    groups: list[tuple[set[int], list[Source]]] = []
    for source in sources:
        units, members = set(roots[source.ids].tolist()), [source]
        apart = []
        for other in groups:
            if units.isdisjoint(other[0]):
                apart.append(other)
            else:
                units |= other[0]
                members = [*other[1], *members]
        groups = [*apart, (units, members)]
    order = {id(source): i for i, source in enumerate(sources)}
    return sorted(
        (sorted(members, key=lambda source: order[id(source)]) for _, members in groups),
        key=lambda members: order[id(members[0])],
    )
