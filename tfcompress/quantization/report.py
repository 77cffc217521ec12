"""`qat_report`: which layers of a quantization-aware model compute in int8, and which in float."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import keras
from rich.table import Table

from tfcompress.edge.shown import Shown
from tfcompress.model.graph import Node, functional, is_graph, nodes
from tfcompress.model.kernels import kernels_of
from tfcompress.model.layers import rule_class
from tfcompress.model.quantized import is_quantized, is_step_input
from tfcompress.model.tables import as_text, new_table

from .composites.cells import CELLS
from .fake_quant import FakeQuant
from .float_flow import exact_nodes
from .layer_table import Rule, activation_reason, float_reason, is_relu, rule_of
from .naming import original_name
from .numerics import nudged
from .wrapper import QuantizeWrapper, without_steps

__all__ = ["QatLayer", "QatReport", "qat_report"]


@dataclass(frozen=True)
class QatLayer:
    """A layer or operation of a report.

    Attributes:
        path: Names of the nested models around it and its own, joined by slashes.
        type: Class of the layer, then the classes of the layers that TFLite computes in the same
            op.
        kernel: Type of the weights: "int8 per channel", "float", or "" without any.
        output: How the output is quantized, in words.
        range: Lowest and highest value of the output in the file, or None if they are not known.
        floating: Why it is computed in float, or "".
    """

    path: str
    type: str
    kernel: str
    output: str
    range: tuple[float, float] | None
    floating: str


@dataclass(frozen=True)
class QatReport(Shown):
    """The report of a quantization-aware model. Printing it gives a table.

    >>> from tfcompress import quantize_aware
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    >>> report = qat_report(quantize_aware(model))
    >>> [layer.kernel for layer in report.layers if layer.path == "head"], report.floating
    (['int8 per channel'], ())

    Attributes:
        model: Name of the model.
        layers: Layers and operations, in the order of computation.
    """

    model: str
    layers: tuple[QatLayer, ...]

    @property
    def floating(self) -> tuple[QatLayer, ...]:
        """Return the layers that are computed in float."""
        return tuple(layer for layer in self.layers if layer.floating)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {"model": self.model, "layers": [asdict(layer) for layer in self.layers]}

    def table(self) -> Table:
        """Return the report as a table to print."""
        table = new_table(
            ["Layer", "Type", "Weights", "Output", "Range"],
            title=f"{self.model}, quantization-aware",
        )
        for layer in self.layers:
            bounds = "" if layer.range is None else "{:.4g} to {:.4g}".format(*layer.range)
            output = f"float: {layer.floating}" if layer.floating else layer.output
            table.add_row(layer.path, layer.type, layer.kernel, output, bounds)
        return table

    def __rich__(self) -> Table:
        return self.table()

    def __str__(self) -> str:
        return as_text(self.table(), width=100)


def qat_report(model: keras.Model) -> QatReport:
    """Report for each layer of a quantization-aware model how its int8 file computes it.

    The report says which weights and outputs are int8, in which range, and why others are float.

    >>> from tfcompress.quantization.quantize import quantize_aware
    >>> volume = keras.Input((4, 4, 4, 1))
    >>> model = keras.Model(volume, keras.layers.Conv3D(2, 3, name="conv")(volume))
    >>> [(layer.path, layer.floating) for layer in qat_report(quantize_aware(model)).floating]
    [('conv', "TFLite's CONV_3D has no int8 kernel")]

    Args:
        model: A model from `quantize_aware`.

    Returns:
        A report that prints as a table.

    Raises:
        TypeError: If it is not a Keras model.
        ValueError: If it does not come from `quantize_aware`.
    """
    functional(model)
    if not is_quantized(model):
        raise ValueError(f"The model {model.name!r} is not quantization-aware: nothing to report.")
    return QatReport(model.name, tuple(_layers(model, "")))


def _layers(model: keras.Model, prefix: str) -> list[QatLayer]:
    found: list[QatLayer] = []
    seen: set[int] = set()
    graph = nodes(model)
    makers = {key: node.operation for node in graph for key in node.outputs}
    exact, unrounded = exact_nodes(graph), set[int]()
    for node in graph:
        operation = node.operation
        if isinstance(operation, FakeQuant) or is_step_input(operation) or id(operation) in seen:
            continue
        seen.add(id(operation))
        if is_graph(operation):
            found += _layers(operation, f"{prefix}{operation.name}/")
        else:
            found.append(_describe(node, prefix, makers, exact, unrounded))
            moves = rule_of(operation) is Rule.SAME
            if found[-1].floating or (moves and unrounded.intersection(node.inputs)):
                unrounded.update(node.outputs)
    return found


def _describe(
    node: Node,
    prefix: str,
    makers: dict[int, Any],
    exact: Collection[int],
    unrounded: set[int],
) -> QatLayer:
    operation: Any = node.operation
    wrapper = operation if isinstance(operation, QuantizeWrapper) else None
    parts = [wrapper.layer, *wrapper.then] if wrapper else [operation]
    follower = next((c for c in node.consumers if c is not None and _rounds(c)), None)
    has_kernels = isinstance(parts[0], keras.layers.Layer) and bool(kernels_of(parts[0]))
    given = node.call.arguments
    reason = None
    if not node.call.is_input:
        reason = float_reason(parts[0], given.args, without_steps(given.kwargs))
    kernel = "int8 per channel" if wrapper is not None and not wrapper.why_float() else "float"
    if wrapper is not None:
        reason = reason or wrapper.why_float()
        if wrapper.activation is not None and not wrapper.in_float:
            reason = reason or activation_reason(wrapper.activation)
    output, bounds = _output(node, parts[0], follower, makers)
    if wrapper is None and not node.call.is_input and not reason:
        detached = follower is not None and follower.operation.detached
        reads_floats = rule_of(operation) is not Rule.SAME and unrounded.intersection(node.inputs)
        if output == "float" and id(node) in exact:
            reason = "an integer is made of its output"
        elif output == "float" or detached or reads_floats:
            reason = "kept in float on request"
    if wrapper is not None and not reason and (steps := _unrolled_steps(node, parts[0])):
        output += f"; unrolled: the file holds all {steps} steps one by one"
    return QatLayer(
        path=prefix + original_name(parts[0]),
        type=" + ".join(type(part).__name__ for part in parts),
        kernel=kernel if has_kernels else "",
        output=output,
        range=bounds,
        floating=reason or "",
    )


def _unrolled_steps(node: Node, layer: keras.layers.Layer) -> int | None:
    kind = rule_class(layer)
    if kind not in CELLS and kind is not keras.layers.Bidirectional:
        return None
    return int(node.call.input_tensors[0].shape[1])


def _rounds(node: Node) -> bool:
    """Return whether a node rounds its input to the range that the tensor has in the file."""
    given = node.call.arguments.kwargs
    return isinstance(node.operation, FakeQuant) and not {"entering", "only_range"} & given.keys()


def _unwrapped(operation: Any) -> Any:
    return operation.layer if isinstance(operation, QuantizeWrapper) else operation


def _output(
    node: Node, operation: Any, follower: Node | None, makers: dict[int, Any]
) -> tuple[str, Any]:
    if not any(keras.backend.is_float_dtype(tensor.dtype) for tensor in node.tensors):
        return Rule.NONE.value, None
    if follower is None:
        after = node.only_consumer()
        if after is not None and is_relu(_unwrapped(after.operation)):
            return f"none: one op with '{_unwrapped(after.operation).name}'", None
        reader = None if after is None else after.operation
        if isinstance(reader, QuantizeWrapper) and rule_class(reader.layer) is keras.layers.Softmax:
            return f"int8, in a range inside '{reader.layer.name}'", None
        same = rule_of(operation) in (Rule.SAME, Rule.JOINED, Rule.ROUNDED, Rule.NONE)
        return (rule_of(operation).value if same else "float"), None
    layer: FakeQuant = follower.operation
    if layer.fixed is not None:
        return Rule.FIXED.value, layer.fixed
    known = float(layer.seen.numpy()) > 0
    joint = follower.call.arguments.kwargs.get("joint")
    whole = None if joint is None or not known else makers[id(joint)].range()
    bounds = layer.range(whole) if known else None
    together = layer.calls > 1 or (whole is not None and bounds == whole)
    in_file = None if bounds is None else tuple(end + 0.0 for end in nudged(*bounds))  # no -0.0
    return (Rule.JOINED if together else Rule.OWN).value, in_file
