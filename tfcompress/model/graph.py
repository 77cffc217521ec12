"""Read the graph of operations of a Keras model, and build another model along it."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras

from . import keras_private
from .checks import check_built
from .kernels import kernels_of
from .layers import Lineage

__all__ = [
    "Node",
    "all_nodes",
    "calls",
    "ends",
    "functional",
    "given_inputs",
    "is_graph",
    "nodes",
]


@dataclass(eq=False)
class Node:
    """One call of an operation.

    Attributes:
        operation: A layer, or an operation of `keras.ops`.
        inputs: Keys of the input tensors; other arguments have none.
        outputs: Keys of the output tensors.
        tensors: The symbolic output tensors.
        calls: How often the model calls the operation.
        consumers: The nodes that read the outputs, one entry for each reading; None stands for the
            model's outputs.
        call: Keras' record of the call.
    """

    operation: Any
    inputs: list[int]
    outputs: list[int]
    tensors: list[Any]
    call: keras_private.CallNode
    calls: int = 1
    consumers: list[Node | None] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Return the name of the operation."""
        return str(self.operation.name)

    def only_consumer(self) -> Node | None:
        """Return the single reader of the single output, or None."""
        if len(self.outputs) == 1 and len(self.consumers) == 1:
            return self.consumers[0]
        return None


def functional(model: keras.Model) -> Any:
    """Return the functional model whose graph a functional or sequential model has.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: It is not built, or it is subclassed, so that it has no graph.
    """
    check_built(model)
    if is_graph(model):
        return keras_private.functional_of(model) if isinstance(model, keras.Sequential) else model
    if isinstance(model, keras.Sequential):
        raise ValueError(
            f"The model {model.name!r} does not know its input's shape. Start it with "
            "keras.Input(shape)."
        )
    raise ValueError(f"The model {model.name!r} is subclassed ({type(model).__name__}).")


def nodes(model: keras.Model) -> list[Node]:
    """Return the calls of a model, inputs first, in an order in which they can be computed.

    Args:
        model: A functional or sequential model.

    Returns:
        List of `Node`. A nested model is one operation here.
    """
    graph = functional(model)
    found: list[Node] = []
    producers: dict[int, Node] = {}
    for call in keras_private.call_nodes(graph):
        given = call.input_tensors
        if is_graph(call.operation):
            given = given_inputs(call.operation, call.arguments.args, call.arguments.kwargs)
        node = Node(
            call.operation,
            [id(tensor) for tensor in given],
            [id(tensor) for tensor in call.outputs],
            list(call.outputs),
            call,
        )
        found.append(node)
        for key in node.outputs:
            producers[key] = node
    calls = Counter(id(node.operation) for node in found)
    for node in found:
        node.calls = calls[id(node.operation)]
        for key in node.inputs:
            producers[key].consumers.append(node)
    for tensor in graph.outputs:
        producers[id(tensor)].consumers.append(None)
    return found


def all_nodes(model: keras.Model) -> Iterator[Node]:
    """Yield the calls in a model and in the models nested in it, each of these once.

    Args:
        model: A functional or sequential model.

    Yields:
        The nodes of the model, then those of each nested one.
    """
    todo, seen = [model], {id(model)}
    while todo:
        for node in nodes(todo.pop()):
            yield node
            if is_graph(node.operation) and id(node.operation) not in seen:
                seen.add(id(node.operation))
                todo.append(node.operation)


def given_inputs(model: keras.Model, args: Any, kwargs: Any) -> list[Any]:
    """Return the symbolic tensors that a model is called with, in the order of its inputs.

    Args:
        model: A functional or sequential model.
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.

    Returns:
        A tensor for each input; a dictionary is read by the names of the inputs.
    """
    graph = functional(model)
    given = inspect.signature(model.call).bind(*args, **kwargs).args[0]
    if isinstance(given, dict) and not isinstance(graph.input, dict):
        return [given[tensor.name] for tensor in graph.inputs]
    flat = keras.tree.flatten(given)
    return [tensor for tensor in flat if isinstance(tensor, keras.KerasTensor)]


def calls(
    model: keras.Model, inputs: list[Any] | None = None, lineage: Lineage = ()
) -> Iterator[tuple[Lineage, tuple[int | None, ...]]]:
    """Yield each call of a layer in a model and in nested models, with the input shape.

    >>> head = keras.layers.Dense(2, name="head")
    >>> inner = keras.Sequential([keras.Input((None, 4)), head], name="inner")
    >>> [([layer.name for layer in lineage], shape)
    ...     for lineage, shape in calls(keras.Sequential([keras.Input((3, 4)), inner]))]
    [(['inner', 'head'], (None, 3, 4))]

    Args:
        model: A functional or sequential model.
        inputs: Symbolic tensors that the model is called with. Defaults to its own inputs.
        lineage: The models around this one, outermost first, and this one, without the outermost.
            Defaults to none, for the outermost model.

    Yields:
        The layer with the models around it, outermost first, and the shape of its first input
        tensor, with the batch axis. A nested model yields its layers for each of its own calls.
    """
    graph = functional(model)
    given = graph.inputs if inputs is None else inputs
    own = [t.shape for t in given] == [t.shape for t in graph.inputs]
    fresh = {id(old): new for old, new in zip(graph.inputs, given, strict=True)}
    values: dict[int, Any] = {}
    for node in nodes(model):
        operation = node.operation
        if node.call.is_input:
            values[node.outputs[0]] = fresh[node.outputs[0]]
            continue
        args, kwargs = node.call.arguments.fill_in(values)
        if is_graph(operation):
            given = given_inputs(operation, args, kwargs)
            yield from calls(operation, given, (*lineage, operation))
        elif isinstance(operation, keras.layers.Layer):
            flat = keras.tree.flatten((args, kwargs))
            tensors = [tensor for tensor in flat if isinstance(tensor, keras.KerasTensor)]
            yield (*lineage, operation), tensors[0].shape if tensors else ()
        # A nested model may be declared for any size, and be called on a fixed one.
        results = node.tensors if own else operation.compute_output_spec(*args, **kwargs)
        values.update(zip(node.outputs, keras.tree.flatten(results), strict=True))


def is_graph(operation: Any) -> bool:
    """Return whether an operation is a model whose graph can be read."""
    if isinstance(operation, keras.Sequential):
        return keras_private.functional_of(operation) is not None
    return isinstance(operation, keras.Model) and keras_private.has_graph(operation)


def ends(model: keras.Model, first: bool, last: bool) -> set[int]:
    """Return the ids of the first layers with kernels after inputs, or the last before outputs.

    Args:
        model: A functional or sequential model.
        first: Whether to return the first ones.
        last: Whether to return the last ones.

    Returns:
        Set of ids. A nested model at such a place gives its own first or last layers.
    """
    graph = nodes(model)
    producers = {key: node for node in graph for key in node.outputs}
    found: set[int] = set()

    def follow(node: Node | None, forward: bool, seen: set[int]) -> None:
        if node is None or id(node) in seen:
            return
        seen.add(id(node))
        operation = node.operation
        if is_graph(operation):
            found.update(ends(operation, forward, not forward))
        elif isinstance(operation, keras.layers.Layer) and kernels_of(operation):
            found.add(id(operation))
        else:
            after = node.consumers if forward else [producers[key] for key in node.inputs]
            for other in after:
                follow(other, forward, seen)

    if first:
        seen: set[int] = set()
        for node in graph:
            if node.call.is_input:
                follow(node, True, seen)
    if last:
        seen = set()
        for tensor in functional(model).outputs:
            follow(producers[id(tensor)], False, seen)
    return found
