"""Keras' graph of operations: reading it, and building a model anew along it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras

from .checks import check_built
from .kernels import kernels_of
from .layers import Lineage

__all__ = [
    "Node",
    "calls",
    "copy_layer",
    "ends",
    "from_config",
    "functional",
    "given_inputs",
    "is_graph",
    "nodes",
    "rebuild",
    "symbolic_call",
]


@dataclass(eq=False)
class Node:
    """One call of an operation.

    Attributes:
        operation: A layer, or an operation of `keras.ops`.
        inputs: Keys of the tensors that go in; of anything else that does, nothing.
        outputs: Keys of the tensors that come out.
        tensors: The symbolic tensors that come out.
        calls: How often the model calls the operation.
        consumers: The nodes that read the outputs, each as often as it does; None stands for the
            model's outputs.
        call: Keras' own node.
    """

    operation: Any
    inputs: list[int]
    outputs: list[int]
    tensors: list[Any]
    call: Any
    calls: int = 1
    consumers: list[Node | None] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the operation."""
        return str(self.operation.name)

    def only_consumer(self) -> Node | None:
        """The node that alone reads the only output, if there is one."""
        if len(self.outputs) == 1 and len(self.consumers) == 1:
            return self.consumers[0]
        return None


def functional(model: object) -> Any:
    """The model whose graph can be read, of a functional or sequential model.

    Raises:
        TypeError: It is no Keras model.
        ValueError: It is not built, or subclassed, so that it has no graph.
    """
    check_built(model)
    if is_graph(model):
        return model._functional if isinstance(model, keras.Sequential) else model
    assert isinstance(model, keras.Model)
    if isinstance(model, keras.Sequential):
        raise ValueError(
            f"The model {model.name!r} does not know its input's shape. Start it with "
            "keras.Input(shape)."
        )
    raise ValueError(f"The model {model.name!r} is subclassed ({type(model).__name__}).")


def nodes(model: keras.Model) -> list[Node]:
    """The calls of a model, inputs first, in an order in which they can be computed.

    Args:
        model: A functional or sequential model.

    Returns:
        List of `Node`. A nested model is one operation here.
    """
    graph = functional(model)
    found: list[Node] = []
    producers: dict[int, Node] = {}
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for call in graph._nodes_by_depth[depth]:
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


def given_inputs(model: keras.Model, args: Any, kwargs: Any) -> list[Any]:
    """The symbolic tensors that a model is called with, in the order of its inputs.

    Args:
        model: A functional or sequential model.
        args: Positional arguments of the call.
        kwargs: The others.

    Returns:
        A tensor for each input. Keras takes a dictionary by the names of inputs.
    """
    graph = functional(model)
    given = args[0] if args else next(iter(kwargs.values()))
    if isinstance(given, dict) and not isinstance(graph._inputs_struct, dict):
        return [given[tensor.name] for tensor in graph.inputs]
    flat = keras.tree.flatten((args, kwargs))
    return [tensor for tensor in flat if isinstance(tensor, keras.KerasTensor)][: len(graph.inputs)]


def calls(
    model: keras.Model, inputs: list[Any] | None = None, lineage: Lineage = ()
) -> Iterator[tuple[Lineage, tuple[int | None, ...]]]:
    """Each call of a layer in a model and in those nested in it, with the shape that goes in.

    >>> head = keras.layers.Dense(2, name="head")
    >>> inner = keras.Sequential([keras.Input((None, 4)), head], name="inner")
    >>> [([layer.name for layer in lineage], shape)
    ...     for lineage, shape in calls(keras.Sequential([keras.Input((3, 4)), inner]))]
    [(['inner', 'head'], (None, 3, 4))]

    Args:
        model: A functional or sequential model.
        inputs: Symbolic tensors that it is called with. Defaults to its own.
        lineage: The models around it, outermost first, and itself; the outermost left out.

    Yields:
        The layer with those around it, outermost first, and the shape of the first tensor that it
        gets, the batch in front. A nested model yields its layers once for each of its own calls.
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
        # A nested model may be declared for any size, and be called on a certain one.
        results = node.tensors if own else operation.compute_output_spec(*args, **kwargs)
        values.update(zip(node.outputs, keras.tree.flatten(results), strict=True))


def rebuild(
    model: keras.Model,
    call: Callable[[Node, Any, Any], Any],
    name: str,
    called_with: list[Any] | None = None,
    finish: Callable[..., keras.Model] = keras.Model,
) -> keras.Model:
    """A new functional model along the graph of another.

    Args:
        model: A functional or sequential model.
        call: `(node, args, kwargs) -> outputs` for each node, inputs included: there, `args` holds
            the new symbolic input. What it returns takes the place of the node's outputs.
        name: Of the new model.
        called_with: Tensors whose channels the inputs take over. Default: the inputs stay.
        finish: `(inputs, outputs, name=name) -> model`, from the new symbolic tensors. Defaults to
            `keras.Model`.

    Returns:
        The new model, with inputs and outputs in the same structures.
    """
    graph = functional(model)
    given = graph.inputs if called_with is None else called_with
    channels = {id(old): new.shape[-1:] for old, new in zip(graph.inputs, given, strict=True)}
    inputs = keras.tree.map_structure(
        lambda tensor: _new_input(tensor, channels[id(tensor)]), graph._inputs_struct
    )
    fresh = {
        id(old): new for old, new in zip(graph.inputs, keras.tree.flatten(inputs), strict=True)
    }
    values: dict[int, Any] = {}
    for node in nodes(model):
        if node.call.is_input:
            args, kwargs = (fresh[node.outputs[0]],), {}
        else:
            args, kwargs = node.call.arguments.fill_in(values)
        outputs = keras.tree.flatten(call(node, args, kwargs))
        values.update(zip(node.outputs, outputs, strict=True))
    results = keras.tree.map_structure(lambda tensor: values[id(tensor)], graph._outputs_struct)
    return finish(inputs, results, name=name)


def _new_input(tensor: Any, channels: tuple[int | None, ...]) -> Any:
    layer = tensor._keras_history.operation
    optional = getattr(layer, "optional", False)
    # A declared size of None stays.
    kept = tensor.shape[-1:] in ((), (None,))
    shape = tensor.shape if kept else (*tensor.shape[:-1], *channels)
    return keras.Input(batch_shape=shape, dtype=tensor.dtype, name=layer.name, optional=optional)


def copy_layer(layer: keras.layers.Layer, args: Any, kwargs: Any) -> keras.layers.Layer:
    """A copy of a layer, built on what it is called with, with the same weights.

    Raises:
        ValueError: The layer cannot be made from its own config.
    """
    try:
        config = layer.get_config()
    except Exception as error:
        raise _not_copied(layer) from error
    return from_config(layer, config, args, kwargs)


def from_config(
    layer: keras.layers.Layer,
    config: dict[str, Any],
    args: Any,
    kwargs: Any,
    value: Callable[[keras.Variable], Any] = lambda variable: variable,
) -> keras.layers.Layer:
    """As `copy_layer`, with another config, and weights made of the layer's own by `value`."""
    try:
        if isinstance(layer, keras.layers.Lambda):
            # The function is already in this process: nothing foreign is loaded.
            copy = keras.layers.Lambda.from_config(config, safe_mode=False)
            # The original one knows the names around it, which the config does not hold.
            copy.function = layer.function
        else:
            copy = type(layer).from_config(config)
    except Exception as error:
        raise _not_copied(layer, f": {error}") from error
    symbolic_call(copy, args, kwargs)
    old, new = [value(variable) for variable in layer.variables], copy.variables
    if [tuple(v.shape) for v in old] != [tuple(v.shape) for v in new]:
        raise ValueError(
            f"Layer {layer.name!r} ({type(layer).__name__}) cannot be copied: made from its own "
            f"config it has other weights, {[v.path for v in new]} instead of "
            f"{[v.path for v in layer.variables]}."
        )
    for source, target in zip(old, new, strict=True):
        target.assign(source)
    if hasattr(copy, "finalize_state"):
        copy.finalize_state()  # Normalization keeps tensors made of its weights.
    return copy


def _not_copied(layer: keras.layers.Layer, why: str = "") -> ValueError:
    return ValueError(
        f"Layer {layer.name!r} ({type(layer).__name__}) cannot be copied, because it cannot be "
        f"made from its own config{why}. Give the class a `get_config` that returns the "
        "arguments of its `__init__`."
    )


def symbolic_call(layer: keras.layers.Layer, args: Any, kwargs: Any) -> Any:
    """Call a layer on symbolic tensors that belong to no graph, so that it builds itself."""

    def detach(x: Any) -> Any:
        if not isinstance(x, keras.KerasTensor):
            return x
        return keras.KerasTensor(x.shape, x.dtype)

    args, kwargs = keras.tree.map_structure(detach, (args, kwargs))
    before = len(layer._inbound_nodes)
    outputs = layer(*args, **kwargs)
    # `layer.output` is that of its first call, which is to be the one in a model.
    del layer._inbound_nodes[before:]
    return outputs


def is_graph(operation: Any) -> bool:
    """Whether it is a model whose graph can be read."""
    if isinstance(operation, keras.Sequential):
        return getattr(operation, "_functional", None) is not None
    return isinstance(operation, keras.Model) and hasattr(operation, "_nodes_by_depth")


def ends(model: keras.Model, first: bool, last: bool) -> set[int]:
    """Ids of the layers with kernels that come first from an input, or last before an output.

    Args:
        model: A functional or sequential model.
        first: Whether to give the first ones.
        last: Whether to give the last ones.

    Returns:
        Set of ids. Of a nested model that stands there, its own first or last layers.
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
