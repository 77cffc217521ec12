"""Every private name of Keras (and one of TensorFlow's) that this package uses, with the reason.

No other module may use one; `tests/model/test_keras_private.py` searches the sources. It also runs
each function on a small model, so that it fails when a new Keras takes a name away. Checked with
the Keras version `CHECKED_WITH`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import keras
from keras.src.applications.convnext import LayerScale
from keras.src.backend.common import global_state

__all__ = [
    "CHECKED_WITH",
    "AttentionProjections",
    "CallNode",
    "LayerScale",
    "attention_dropout",
    "attention_projections",
    "call_index",
    "call_inside",
    "call_nodes",
    "child_layers",
    "compiled_loss",
    "flat_layers",
    "forget_calls",
    "functional_of",
    "has_graph",
    "infer_spec",
    "layers_in_scope",
    "mask_of",
    "number_of_calls",
    "producer",
    "recorded",
    "renamed",
    "set_attention_regularizer",
    "set_call_signature",
    "set_dense",
    "set_mask",
    "traced_function",
]

CHECKED_WITH = "3.15"
"""The Keras version that this module was checked with."""

# `LayerScale`, the layer that ends ConvNeXt's blocks, is in no public namespace of Keras.


class CallNode(Protocol):
    """Keras' record of one call of an operation: what the package reads of it.

    The names have no underscore, but no documentation of Keras mentions the class.

    Attributes:
        operation: A layer, or an operation of `keras.ops`.
        arguments: The call's `args`, `kwargs` and `fill_in(tensors by id)`.
        input_tensors: The symbolic tensors among the arguments.
        outputs: The symbolic tensors that come out.
        is_input: Whether it stands for an input of the model.
    """

    operation: Any
    arguments: Any
    outputs: list[Any]
    is_input: bool

    @property
    def input_tensors(self) -> list[Any]:
        """Return the symbolic tensors among the arguments."""


class AttentionProjections(NamedTuple):
    """The four `EinsumDense` layers of an attention layer."""

    query: keras.layers.Layer
    key: keras.layers.Layer
    value: keras.layers.Layer
    output: keras.layers.Layer


def flat_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Return a layer and all layers inside it, in the order of creation.

    `Model.layers` lists the direct layers of a model only; a layer that is no model has no such
    attribute.
    """
    return list(layer._flatten_layers())


def child_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Return the layers directly inside a layer; for the reason see `flat_layers`."""
    return list(layer._flatten_layers(recursive=False, include_self=False))


def has_graph(model: keras.Model) -> bool:
    """Return whether a model is functional.

    The class `Functional` is not public, and `keras.Model(inputs, outputs)` may return a subclass.
    """
    return hasattr(model, "_nodes_by_depth")


def functional_of(model: keras.Sequential) -> keras.Model | None:
    """Return the functional model that a sequential one runs; None before it knows its input.

    A `Sequential` has no graph of its own, and no public attribute leads to the one that it uses.
    """
    functional: keras.Model | None = model._functional
    return functional


def call_nodes(model: keras.Model) -> list[CallNode]:
    """Return the calls in a functional model, in an order in which they can be computed.

    `Model.layers` gives neither the connections, nor `keras.ops`, nor several calls of one layer.
    """
    by_depth = model._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def producer(tensor: keras.KerasTensor) -> Any:
    """Return the operation that a symbolic tensor comes from, or None.

    Nothing public leads from a tensor to its layer.
    """
    history = getattr(tensor, "_keras_history", None)
    return None if history is None else history.operation


def mask_of(tensor: Any) -> Any:
    """Return the mask that a tensor carries, or None.

    Keras hands masks from layer to layer on the tensors, and has no public way to read one.
    """
    return getattr(tensor, "_keras_mask", None)


def renamed(operation: Any, name: str, base: type | None = None) -> Any:
    """Return a layer or an operation under another name, without the record of its calls.

    A layer then has its variables and the layers inside it in common with the original. `base` is
    a class that it descends from, and is to have. Some operations have no config that a copy could
    be made from, and `copy.copy` makes lists of tuples.
    """
    other: Any = object.__new__(base or type(operation))
    # Past `Layer.__setattr__`, whose tracker the two have in common.
    vars(other).update(vars(operation))
    if base is not None:
        vars(other)["_call_signature"] = inspect.signature(other.call)
    vars(other).update(name=name, _inbound_nodes=[], _outbound_nodes=[])
    return other


def number_of_calls(operation: keras.Operation) -> int:
    """Return how often an operation was called on symbolic tensors; the calls are not public."""
    return len(operation._inbound_nodes)


def call_index(operation: keras.Operation, call: CallNode) -> int:
    """Return the place of a call among all calls of an operation; the calls are not public."""
    return int(operation._inbound_nodes.index(call))


def forget_calls(operation: keras.Operation, keep: int) -> None:
    """Remove an operation's calls after the first `keep`.

    `layer.input` and `layer.output` are those of the first recorded call, which must be the call in
    a model. Keras has no public way to call a layer without a record.
    """
    del operation._inbound_nodes[keep:]


def call_inside(layer: keras.layers.Layer, args: Any, kwargs: Any) -> Any:
    """Call a layer on symbolic tensors so that they record the calls inside it, not its own.

    Everything that Keras does around `call` is done: masks, casts, the arguments that a context
    gives. Only `symbolic_call` is another one, and the record that Keras leaves on the outputs
    afterwards is taken off.
    """
    found: list[Any] = []
    histories: list[tuple[Any, Any]] = []

    def symbolic_call(*args: Any, **kwargs: Any) -> list[Any]:
        found.append(layer.call(*args, **kwargs))
        # Keras takes no None from a layer.
        tensors = [x for x in keras.tree.flatten(found) if isinstance(x, keras.KerasTensor)]
        histories.extend((tensor, getattr(tensor, "_keras_history", None)) for tensor in tensors)
        return tensors

    outer = renamed(layer, layer.name)
    vars(outer)["symbolic_call"] = symbolic_call
    outer(*args, **kwargs)
    for tensor, history in histories:
        tensor._keras_history = history
    return found[0]


def infer_spec(layer: Any) -> None:
    """Let a layer infer the shapes of its outputs from its `call`, whatever its class says.

    An `EinsumDense` takes sizes from its config, where they may be free, and a subclass with a
    `call` of its own may inherit what another `call` gives.
    """
    vars(layer)["compute_output_spec"] = partial(keras.Operation.compute_output_spec, layer)


def recorded(outputs: list[Any], inputs: list[Any]) -> list[CallNode]:
    """Return the calls that lead from inputs to outputs, in an order in which they can be computed.

    `keras.Function` does this for graphs whose operations have names of their own only.
    """
    known = {id(tensor) for tensor in inputs}
    found: dict[int, CallNode] = {}
    todo = [(tensor, False) for tensor in reversed(outputs)]
    while todo:
        tensor, ready = todo.pop()
        history = getattr(tensor, "_keras_history", None)
        if id(tensor) in known or history is None or history.operation is None:
            continue
        node = history.operation._inbound_nodes[history.node_index]
        if ready:
            found.setdefault(id(node), node)
        elif id(node) not in found:
            todo.append((tensor, True))
            todo += [(given, False) for given in reversed(node.input_tensors)]
    return list(found.values())


def set_dense(tensors: list[Any]) -> None:
    """Note that symbolic tensors are not sparse.

    Keras takes the product of a tensor and a constant for sparse, so that the layers after it fail.
    """
    for tensor in tensors:
        tensor._sparse = False


def set_mask(tensor: Any, mask: Any) -> None:
    """Set the mask that a tensor carries; for the reason see `mask_of`."""
    tensor._keras_mask = mask


def attention_projections(layer: keras.layers.Layer) -> AttentionProjections:
    """Return the projections of a built `MultiHeadAttention` or `GroupQueryAttention`.

    Only `MultiHeadAttention` has public properties for them.
    """
    return AttentionProjections(
        layer._query_dense, layer._key_dense, layer._value_dense, layer._output_dense
    )


def attention_dropout(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Return the dropout layer on the probabilities of an attention layer.

    It holds the seed generator, so a new `Dropout` of the same rate would not do.
    """
    return layer._dropout_layer


def set_call_signature(wrapper: keras.layers.Layer, signature: inspect.Signature) -> None:
    """Make Keras call a wrapper with the arguments, masks and flags of a signature.

    Keras reads the signature off the wrapper's own `call`, which takes any arguments.
    """
    wrapper._call_signature = signature


def set_attention_regularizer(layer: keras.layers.Layer, regularizer: Any) -> None:
    """Set the kernel regularizer that an attention layer writes into its config.

    `MultiHeadAttention` keeps it in a private attribute, `GroupQueryAttention` in a public one.
    """
    name = "_kernel_regularizer" if hasattr(layer, "_kernel_regularizer") else "kernel_regularizer"
    setattr(layer, name, regularizer)


def compiled_loss(model: keras.Model, y: Any, y_pred: Any, sample_weight: Any) -> Any:
    """Return the loss that `compile` got, on labels and predictions; None if it got none.

    `Model.compute_loss` adds the losses of all layers, which `Distiller` reports separately.
    """
    loss = model._compile_loss
    return None if loss is None else loss(y, y_pred, sample_weight)


def layers_in_scope() -> Sequence[Any]:
    """Return the layers that are being called in this thread, innermost first.

    Keras keeps them for the names of variables; no public function tells which layer is running.
    """
    scopes = global_state.get_global_attribute("name_scope_stack") or ()
    return [scope.caller for scope in reversed(scopes)]


def traced_function(graph: Any, name: str) -> Any:
    """Return the graph of a function that an operation of a TensorFlow graph calls.

    TensorFlow has no public way from an operation to the function that it calls.
    """
    return graph._get_function(name).graph
