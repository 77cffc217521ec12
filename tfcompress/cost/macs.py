"""Multiply-accumulates of a model, counted in the graph that TensorFlow traces it to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfcompress.model.keras_private import layers_in_scope, traced_function
from tfcompress.model.layers import all_layers

__all__ = ["add_macs", "count_macs"]

_COUNTED = {
    *("Conv2D", "Conv3D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "Conv3DBackpropInputV2"),
    *("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "CudnnRNNV3"),
}
# Operations whose computation the graph does not show.
_OPAQUE = {"PyFunc", "PyFuncStateless", "EagerPyFunc", "XlaCallModule", "CudnnRNN", "CudnnRNNV2"}

Macs = dict[keras.layers.Layer, int | None]
Owners = Mapping[tf.Operation, keras.layers.Layer]
Shape = tuple[int | None, ...]


def count_macs(model: keras.Model, inputs: Any = None) -> Macs:
    """Count the multiply-accumulates of one inference on one sample, layer by layer.

    The model is traced, not run, so raw `keras.ops`, custom layers and subclassed models count too.
    The operations that the outputs depend on count as follows:

    - A convolution: outputs x kernel height x width x input channels of its group. A depthwise one:
      outputs x kernel height x width. A transposed one: inputs x kernel height x width x output
      channels. Positions in the padding count as any other.
    - A matrix product: rows x columns x summed length. An `einsum` of two operands: the product of
      the sizes of all its axes.
    - A loop (LSTM, GRU): its body times the number of steps, or the loop's upper limit.

    Everything else is 0: additions, activations, normalization, pooling, resizing, and lookups in
    an `Embedding`. Python code inside the graph (`tf.py_function`) cannot be seen, and counts as
    None.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")])
    >>> {layer.name: macs for layer, macs in count_macs(model).items()}
    {'head': 32}

    Args:
        model: A built model.
        inputs: Arguments to call the model with: arrays or `keras.KerasTensor`s with the batch
            first; a tuple is several arguments. Defaults to None: the model's own inputs, or the
            shapes that it was built with.

    Returns:
        Multiply-accumulates by the innermost layer that computes them, without layers that compute
        none. None where a size is unknown.

    Raises:
        ValueError: The model cannot be traced.
    """
    owners: dict[tf.Operation, keras.layers.Layer] = {}
    known = set(all_layers(model))

    def note_owner(op: tf.Operation) -> str:
        # Called when an operation is created, in functions and loop bodies too.
        for layer in layers_in_scope():
            if layer in known:
                owners[op] = layer
                break
        return str(op.device)

    def call(*args: Any, **kwargs: Any) -> Any:
        # The scope keeps the trace's losses and state updates out of the model.
        with tf.compat.v1.get_default_graph().device(note_owner), keras.StatelessScope():
            return model(*args, training=False, **kwargs)

    args, kwargs, batch = _arguments(model, inputs)
    try:
        graph = tf.function(call, autograph=False).get_concrete_function(*args, **kwargs).graph
    except Exception as error:
        raise ValueError(
            f"The model {model.name!r} cannot be traced on inputs {(*args, *kwargs.values())}: "
            f"{error}\nGive `inputs`: what the model is called with."
        ) from error
    totals = _totals(graph, owners, model)
    return {layer: macs if macs is None else macs // batch for layer, macs in totals.items()}


def add_macs(counts: Iterable[int | None]) -> int | None:
    """Return the sum of multiply-accumulates, or None if one of them is unknown.

    >>> add_macs([1, 2]), add_macs([1, None])
    (3, None)

    Args:
        counts: Numbers of multiply-accumulates, and None for each that is unknown.

    Returns:
        An int or None.
    """
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def _arguments(model: keras.Model, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any], int]:
    """Return positional and keyword arguments to trace the model with, and their batch size."""
    batches = []

    def spec(shape: Iterable[int | None], dtype: str) -> tf.TensorSpec:
        batch, *rest = shape
        batches.append(batch or 1)
        return tf.TensorSpec((batch or 1, *rest), dtype)

    def from_shapes(shape: Any) -> Any:
        if isinstance(shape, dict):
            return {key: from_shapes(part) for key, part in shape.items()}
        if all(size is None or isinstance(size, int) for size in shape):
            return spec((1, *shape[1:]), keras.config.floatx())
        return [from_shapes(part) for part in shape]

    if inputs is not None:
        args = keras.tree.map_structure(
            lambda x: spec((1, *x.shape[1:]), keras.backend.standardize_dtype(x.dtype)), inputs
        )
        return args if isinstance(args, tuple) else (args,), {}, 1
    if getattr(model, "inputs", None):
        symbolic = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
        args = keras.tree.map_structure(lambda t: spec(t.shape, t.dtype), symbolic)
        # The batch is fixed in some models (a stateful LSTM).
        return (args,), {}, batches[0]
    built_with = model.get_build_config() or {}
    if built_with.get("input_shape"):
        return (from_shapes(built_with["input_shape"]),), {}, 1
    if built_with.get("shapes_dict"):
        shapes = built_with["shapes_dict"].items()
        return (), {key.removesuffix("_shape"): from_shapes(shape) for key, shape in shapes}, 1
    raise ValueError(
        f"The shapes of the inputs of {model.name!r} are not known. "
        "Give `inputs`: what the model is called with."
    )


def _totals(graph: tf.Graph, owners: Owners, layer: keras.layers.Layer) -> Macs:
    """Return the costs of a graph's outputs; operations without an owner belong to `layer`."""
    totals: Macs = {}
    for op in _needed(graph):
        for owner, macs in _work(op, owners, owners.get(op, layer)).items():
            before = totals.get(owner, 0)
            totals[owner] = None if macs is None or before is None else before + macs
    return totals


def _needed(graph: tf.Graph) -> set[tf.Operation]:
    """Return the operations that a graph's outputs depend on."""
    needed: set[tf.Operation] = set()
    waiting = [tensor.op for tensor in graph.outputs]
    while waiting:
        op = waiting.pop()
        if op not in needed:
            needed.add(op)
            waiting.extend(tensor.op for tensor in op.inputs)
    return needed


def _work(op: tf.Operation, owners: Owners, owner: keras.layers.Layer) -> Macs:
    def inside(function: Any) -> Macs:
        return _totals(traced_function(op.graph, function.name), owners, owner)

    match op.type:
        case "While" | "StatelessWhile":
            steps = _steps(op)
            body = inside(op.get_attr("body")).items()
            return {layer: _product((steps, macs)) for layer, macs in body}
        case "PartitionedCall" | "StatefulPartitionedCall":
            return inside(op.get_attr("f"))
        case "If" | "StatelessIf":
            return _either([inside(op.get_attr(f"{name}_branch")) for name in ("then", "else")])
        case "Case" | "StatelessCase":
            return _either([inside(branch) for branch in op.get_attr("branches")])
    macs = _macs(op)
    return {} if macs == 0 else {owner: macs}


def _either(branches: Sequence[Macs]) -> Macs:
    """Return the cost of one of several branches, which is known if all cost the same."""
    layers = {layer for branch in branches for layer in branch}
    costs = {layer: {branch.get(layer, 0) for branch in branches} for layer in layers}
    return {layer: cost.pop() if len(cost) == 1 else None for layer, cost in costs.items()}


def _steps(loop: tf.Operation) -> int | None:
    """Return how often a loop runs at most, which is its second input."""
    limit = loop.inputs[1]
    steps = tf.get_static_value(limit)
    if steps is None and limit.op.type == "Max":  # Keras' LSTM: the longest of constant lengths
        lengths = tf.get_static_value(limit.op.inputs[0])
        steps = None if lengths is None else lengths.max()
    return None if steps is None or steps < 0 else int(steps)


def _macs(op: tf.Operation) -> int | None:
    if op.type in _OPAQUE:
        return None
    if op.type not in _COUNTED:
        return 0
    tensors = (*op.inputs, op.outputs[0])
    if any(tensor.shape.rank is None for tensor in tensors):
        return None
    *operands, result = (tuple(tensor.shape) for tensor in tensors)
    if op.type in ("Conv2D", "Conv3D", "DepthwiseConv2dNative"):
        result = _undilated(op, result)
    match op.type:
        case "Conv2D" | "Conv3D":
            return _product((*result, *operands[1][:-1]))
        case "DepthwiseConv2dNative":
            return _product((*result, *operands[1][:2]))
        case "Conv2DBackpropInput" | "Conv3DBackpropInputV2":
            # The kernel is [height, width, outputs, inputs].
            return _product((*operands[2], *operands[1][:-1]))
        case "Einsum":
            return _einsum(op.get_attr("equation").decode(), operands)
        case "CudnnRNNV3":  # Keras' LSTM and GRU where there is an NVIDIA GPU: one layer, one way
            gates = {b"lstm": 4, b"gru": 3}.get(op.get_attr("rnn_mode"))
            inputs, units = operands[0], operands[1][-1]
            return _product((*inputs[:2], gates, units, inputs[2] and units and inputs[2] + units))
    transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
    return _product((*result, operands[0][-2 if transposed else -1]))


def _undilated(op: tf.Operation, result: Shape) -> Shape:
    """Return the output shape of a convolution, without the padding that dilation adds.

    TensorFlow computes a dilated convolution as an ordinary one on parts of the input, and then
    joins and crops the results.
    """
    readers = op.outputs[0].consumers()
    if [reader.type for reader in readers] == ["Squeeze"]:  # the axis that Conv1D adds
        readers = readers[0].outputs[0].consumers()
    if [reader.type for reader in readers] == ["BatchToSpaceND"]:
        return tuple(readers[0].outputs[0].shape)
    return result


def _einsum(equation: str, operands: Sequence[Shape]) -> int | None:
    if len(operands) < 2:
        return 0
    sizes: dict[str, int | None] = {}
    for labels, shape in zip(equation.split("->")[0].split(","), operands, strict=True):
        before, _, after = labels.strip().partition("...")
        # The axes of an ellipsis broadcast, aligned at their ends.
        broadcast = [f"...{i}" for i in range(len(shape) - len(before) - len(after), 0, -1)]
        for label, size in zip((*before, *broadcast, *after), shape, strict=True):
            known = sizes.get(label, 1)
            sizes[label] = None if size is None or known is None else max(size, known)
    return _product(sizes.values())


def _product(sizes: Iterable[int | None]) -> int | None:
    known = list(sizes)
    return None if None in known else math.prod(size for size in known if size is not None)
