"""The quantization-aware copy of a graph, node by node."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
from keras.layers import Layer

from tfcompress.model.graph import Node, functional, is_graph, nodes
from tfcompress.model.kernels import kernels_of
from tfcompress.model.rebuild import copy_layer, rebuild

from .fake_quant import FakeQuant
from .layer_table import needs_wrapper, why_float
from .naming import free_name, name_outputs
from .ops.linear import is_linear
from .place import place
from .scheme import QuantizationScheme, weight_bits
from .steps import step_input, unknown_step
from .wrapper import QuantizeWrapper

__all__ = ["Graph", "Shared"]


@dataclass(frozen=True)
class _Border:
    """Which inputs a nested model takes the steps of, and which outputs it gives them of."""

    inputs: list[int]
    outputs: list[int]


@dataclass(frozen=True)
class Shared:
    """What the graphs of a model and of those nested in it have in common.

    Attributes:
        scheme: How to quantize.
        in_float: Ids of layers to keep in float.
        calls: Id of an operation -> how often all graphs together call it.
        wrapped: Id of a layer to wrap -> the nodes that belong to the same op. One that the
            outermost graph wraps is wrapped in all.
        names: Id of a layer to wrap -> the name of its wrapper, if that is not the usual one.
        copies: Id of a layer -> its copy, so that each is copied once.
        borders: Id of a nested model -> the steps that its copy takes and gives.
    """

    scheme: QuantizationScheme
    in_float: set[int]
    calls: Counter[int]
    wrapped: dict[int, list[Node]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    copies: dict[int, Layer] = field(default_factory=dict)
    borders: dict[int, _Border] = field(default_factory=dict)


class Graph:
    """Builds the quantized copy of one graph.

    Args:
        shared: What it has in common with the graphs around it and inside it.
        model: Model to copy.
        steps_of: Indices of the outputs whose steps the model gives too. None for a model that is
            not nested.
    """

    def __init__(
        self, shared: Shared, model: keras.Model, steps_of: set[int] | None = None
    ) -> None:
        self.shared = shared
        self.model = model
        self.steps_of = steps_of or set()
        nested = steps_of is not None
        self.placement = place(model, shared.in_float, nested, shared.calls)
        if not nested:
            name_outputs(model, self.placement)
        for key, chain in self.placement.wrapped.items():
            shared.wrapped.setdefault(key, chain)
        shared.names.update(self.placement.ends)
        self.ranges: dict[str, FakeQuant] = {}
        # Range and tensor of the original graph -> what that is where it enters the range.
        self.entered: dict[tuple[str, int], Any] = {}
        # Tensor of the original graph -> what it is before it is rounded.
        self.floats: dict[int, Any] = {}
        # By the range, or by the tensor where another graph or a composite rounds it.
        self.steps: dict[int | str, Any] = {}
        self.makers: dict[int | str, Callable[[], Any]] = {}
        self.step_inputs: dict[int, Any] = {}

    def build(self) -> keras.Model:
        """Return the copy."""
        return rebuild(self.model, self._node, self.model.name, finish=self._finish)

    def _node(self, node: Node, args: Any, kwargs: Any) -> list[Any]:
        args, kwargs = self._enter(node, args, kwargs)
        outputs: list[Any] = keras.tree.flatten(self._call(node, args, kwargs))
        for index, key in enumerate(node.outputs):
            name = self.placement.ranges.get(key)
            if name is None:
                continue
            layer, value = self._layer(name), outputs[index]
            self.floats[key] = value
            options: dict[str, Any] = {"observe": False} if key in self.placement.shared else {}
            joint = self.placement.joint.get(name)
            if joint is not None:
                options["joint"] = self._layer(joint)(value, only_range=True)
            outputs[index] = rounded = layer(value, **options)
            self.makers.setdefault(name, partial(layer, rounded, **options, only_step=True))
        return outputs

    def _enter(self, node: Node, args: Any, kwargs: Any) -> Any:
        """Round inputs to the one range that an operation has for all, or not at all for floats."""
        if node.call.is_input:
            return args, kwargs

        def enter(old: Any, new: Any) -> Any:
            if (id(node.call), id(old)) in self.placement.unrounded:
                return self.floats.get(id(old), new)
            name = self.placement.entrances.get((id(node.call), id(old)))
            if name is None:
                return new
            if (name, id(old)) not in self.entered:
                self.entered[name, id(old)] = self._layer(name)(new, entering=True)
            return self.entered[name, id(old)]

        given = node.call.arguments
        return keras.tree.map_structure(enter, (given.args, given.kwargs), (args, kwargs))

    def _layer(self, name: str) -> Any:
        """Return the layer that rounds to a range."""
        if name not in self.ranges:
            self.ranges[name] = self._fake_quant(name)
        return self.ranges[name]

    def _call(self, node: Node, args: Any, kwargs: Any) -> Any:
        operation = node.operation
        if node.call.is_input:
            self.makers[node.outputs[0]] = partial(self._step_input, node)
            return args[0]
        if self.placement.absorbs(node):
            return args[0]
        if not isinstance(operation, Layer):
            freed = id(operation) in self.placement.freed
            return (free_name(operation) if freed else operation)(*args, **kwargs)
        if is_graph(operation):
            return self._nested(node, args, kwargs)
        copies, key = self.shared.copies, id(operation)
        if key not in copies:
            copies[key] = copy_layer(operation, args, kwargs)
            if key in self.shared.wrapped:
                copies[key] = self._wrap(copies[key], node)
        copy = copies[key]
        if isinstance(copy, QuantizeWrapper) and copy.composite and copy.composite.output_step:
            for index, output in enumerate(node.outputs):
                self.makers[output] = partial(copy, *args, **kwargs, only_step=index)
        if self.placement.takes_steps(node, self.shared.in_float):
            if node.inputs and node.inputs[0] in self.placement.integers:
                args, kwargs = self._as_floats(node.inputs[0], args, kwargs)
            steps = self._input_steps(node)
            return copy(*args, **kwargs, **({"input_steps": steps} if steps else {}))
        return copy(*args, **kwargs)

    def _as_floats(self, key: int, args: Any, kwargs: Any) -> Any:
        """Return the arguments with the first tensor, of integers, as rounded floats."""
        name, tensors = self.placement.integers[key], keras.tree.flatten((args, kwargs))
        if name not in self.ranges:
            self.ranges[name] = self._fake_quant(name, integers=True)
        layer: Any = self.ranges[name]
        first = next(x for x in tensors if isinstance(x, keras.KerasTensor))
        self.makers.setdefault(name, partial(layer, first, only_step=True))
        floats = layer(first)
        return keras.tree.map_structure(lambda x: floats if x is first else x, (args, kwargs))

    def _wrap(self, layer: Layer, node: Node) -> QuantizeWrapper:
        key, given, activation = id(node.operation), node.call.arguments, None
        in_float = key in self.shared.in_float
        if not needs_wrapper(node.operation, given.args, given.kwargs):
            # It is wrapped for the sake of its name. Its kernels, if any, stay as they are.
            in_float |= bool(kernels_of(layer)) and why_float(layer) is None
        if is_linear(layer) and layer.activation is not keras.activations.linear:
            activation, layer.activation = layer.activation, keras.activations.linear
        chain, name = self.shared.wrapped[key], self.shared.names.get(key)
        scheme = self.shared.scheme
        return QuantizeWrapper(
            layer,
            [copy_layer(node.operation, node.call.arguments.args, {}) for node in chain],
            activation,
            ranges=scheme.ranges,
            momentum=scheme.momentum,
            symmetric=scheme.activations.symmetric,
            in_float=in_float,
            weight_bits=weight_bits(scheme, layer),
            activation_bits=scheme.activations.bits,
            dtype=layer.dtype_policy,
            name=name or f"quantized_{layer.name}",
        )

    def _fake_quant(self, name: str, integers: bool = False) -> FakeQuant:
        scheme = self.shared.scheme
        return FakeQuant(
            ranges=scheme.ranges,
            momentum=scheme.momentum,
            symmetric=scheme.activations.symmetric,
            fixed=self.placement.fixed.get(name),
            calls=self.placement.calls.get(name, 1),
            bits=scheme.activations.bits,
            integers=integers,
            detached=name in self.placement.detached,
            name=self.placement.names[name],
        )

    # The step of a tensor is a tensor of the graph, made when a layer wants it.

    def _step(self, key: int) -> Any:
        """Return the step of a tensor of the original graph, or None if it is not quantized."""
        origin = self.placement.origins.get(key)
        if origin is None:
            return None
        placement = self.placement
        source = placement.ranges.get(origin) or placement.integers.get(origin) or origin
        if source not in self.steps and source in self.makers:
            self.steps[source] = self.makers[source]()
        return self.steps.get(source)

    def _step_input(self, node: Node) -> Any:
        index = [id(tensor) for tensor in functional(self.model).inputs].index(node.outputs[0])
        self.step_inputs[index] = step_input(node.name)
        return self.step_inputs[index]

    def _input_steps(self, node: Node) -> dict[str, Any]:
        """Return the steps of a layer's inputs, by the names of its arguments."""
        signature = inspect.signature(node.operation.call)
        given = node.call.arguments
        kwargs = {name: v for name, v in given.kwargs.items() if name in signature.parameters}
        found: dict[str, Any] = {}
        for name, value in signature.bind(*given.args, **kwargs).arguments.items():
            flat = keras.tree.flatten(value)
            if flat and all(isinstance(tensor, keras.KerasTensor) for tensor in flat):
                steps = [self._step(id(tensor)) for tensor in flat]
                if all(step is not None for step in steps):
                    found[name] = steps[0] if isinstance(value, keras.KerasTensor) else steps
        return found

    def _nested(self, node: Node, args: Any, kwargs: Any) -> Any:
        operation, key = node.operation, id(node.operation)
        if key not in self.shared.copies:
            wanted = {
                index
                for other in nodes(self.model)
                if other.operation is operation
                for index, output in enumerate(other.outputs)
                if output in self.placement.wanted
            }
            self.shared.copies[key] = Graph(self.shared, operation, wanted).build()
        copy, border = self.shared.copies[key], self.shared.borders[key]
        if border.inputs:
            given, *others = args or (kwargs.pop("inputs"),)
            steps = [self._step(node.inputs[index]) for index in border.inputs]
            if any(step is None for step in steps):
                unknown = unknown_step(keras.tree.flatten(given)[0])
                steps = [unknown if step is None else step for step in steps]
            outputs = copy([given, *steps], *others, **kwargs)
        else:
            outputs = copy(*args, **kwargs)
        if not border.outputs:
            return outputs
        outputs, *given_steps = outputs
        for index, step in zip(border.outputs, given_steps, strict=True):
            self.steps[node.outputs[index]] = step
        return outputs

    def _finish(self, inputs: Any, outputs: Any, name: str) -> keras.Model:
        """Return the model, with the steps that go in and out of a nested one."""
        tensors = functional(self.model).outputs
        steps = {index: self._step(id(tensors[index])) for index in sorted(self.steps_of)}
        steps = {index: step for index, step in steps.items() if step is not None}
        self.shared.borders[id(self.model)] = _Border(list(self.step_inputs), list(steps))
        if self.step_inputs:
            inputs = [inputs, *self.step_inputs.values()]
        if steps:
            outputs = [outputs, *steps.values()]
        return keras.Model(inputs, outputs, name=name)
