"""Follow the graph of a model with a rule for each operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from tfcompress.model.filters import Filters, select_layers
from tfcompress.model.graph import Node, functional, is_graph, nodes
from tfcompress.model.layers import walk

from .call import Call, Rule
from .units import Coupling, Labelled, Labels, fixed

__all__ = ["After", "fix_unselected", "follow"]

After = Callable[[Node, str, list[Labelled], list[Labels]], None]
"""Called after each operation: with its node, path, and labels of the inputs and outputs."""


def follow(
    coupling: Coupling,
    model: keras.Model,
    inputs: Sequence[Labels],
    rule_of: Callable[[Any], Rule],
    after: After,
    prefix: str = "",
) -> list[Labels]:
    """Return the labels of a model's outputs.

    Args:
        coupling: Where the rules write what they find.
        model: A functional or sequential model. Models nested in it are followed at each call.
        inputs: Labels of its inputs.
        rule_of: Returns the rule for an operation.
        after: Function that is called after each operation that is no nested model.
        prefix: What the paths of operations begin with. Defaults to none.

    Returns:
        Labels, one for each output.
    """
    graph = functional(model)
    values = {
        id(t): Labelled(labels, id(t)) for t, labels in zip(graph.inputs, inputs, strict=True)
    }
    for node in nodes(model):
        if node.call.is_input:
            continue
        operation, path = node.operation, prefix + node.name
        given = [values[key] for key in node.inputs]
        if is_graph(operation):
            _same_inputs(coupling, operation, given)
            results = follow(coupling, operation, given, rule_of, after, path + "/")
        else:
            args, kwargs = node.call.arguments.convert(lambda x: _label(x, values))
            shapes = [tuple(tensor.shape) for tensor in node.tensors]
            call = Call(coupling, operation, path, args, kwargs, shapes, id(node.call))
            found = rule_of(operation)(call)
            results = found if isinstance(found, list) else [found]
            after(node, path, given, results)
        for key, labels in zip(node.outputs, results, strict=True):
            values[key] = Labelled(labels, key)
    return [values[id(tensor)] for tensor in graph.outputs]


def _label(argument: Any, values: dict[int, Labelled]) -> Any:
    """Return labels in the place of a tensor, symbolic or constant; other arguments as they are."""
    if isinstance(argument, keras.KerasTensor):
        return values.get(id(argument))
    if hasattr(argument, "shape") and hasattr(argument, "dtype"):
        return Labelled(fixed(tuple(argument.shape)))
    return argument


def _same_inputs(coupling: Coupling, model: keras.Model, inputs: Sequence[Labels]) -> None:
    """Unite the inputs of all calls of a nested model."""
    first = coupling.inputs.setdefault(id(model), list(inputs))
    for one, other in zip(first, inputs, strict=True):
        for a, b in zip(one, other, strict=True):
            if a is None or b is None or len(a) != len(b):
                coupling.fix(a, "a model is called with several sizes of it")
                coupling.fix(b, "a model is called with several sizes of it")
            else:
                coupling.unite(a, b)


def fix_unselected(coupling: Coupling, model: keras.Model, filters: Filters, kind: str) -> None:
    """Keep the units of layers that `filters` does not select.

    Args:
        coupling: What `follow` found.
        model: The model that it was found in.
        filters: Layers whose units are free, as `select_layers` takes them.
        kind: What the layers are, for the error.

    Raises:
        ValueError: `filters` or one of its entries selects no layer that makes units.
    """
    lineages = {id(lineage[-1]): lineage for _, lineage in walk(model) if lineage}
    places = [(s.path, lineages.get(id(s.layer), (s.layer,))) for s in coupling.sources]
    selected = select_layers(model, filters, places, kind=kind)
    for source in coupling.sources:
        if id(source.layer) not in selected:
            coupling.fix(source.ids, f"{source.path} is not in `filters`")
