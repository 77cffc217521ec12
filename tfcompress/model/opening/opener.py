"""A functional model along another one, with the layers that hold layers opened."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

import keras
from keras.layers import Layer

from tfcompress.model import keras_private
from tfcompress.model.filters import Filters, matches
from tfcompress.model.graph import Node, all_nodes, functional, given_inputs, is_graph, nodes
from tfcompress.model.layers import Lineage, Origin, children, rule_class
from tfcompress.model.rebuild import can_be_remade, rebuild

from .activation import own_activation
from .attention import written_out
from .calls import NotOpened, Recording, is_idle_cast
from .keras_base import as_keras_layer, savable, taken_by
from .parameter import Parameter
from .recording import record

__all__ = ["Opener", "is_composite", "is_opened"]


_ROTARY = "keras_hub>RotaryEmbedding"


def is_composite(operation: Any) -> bool:
    """Return whether an operation is a layer made of layers that nothing but its `call` describes.

    A functional model describes itself, and what Keras' own layers do (`MultiHeadAttention`,
    `Bidirectional`) is known.

    >>> is_composite(keras.layers.MultiHeadAttention(2, 4))
    False

    Args:
        operation: A layer, or an operation of `keras.ops`.

    Returns:
        True or False.
    """
    return _is_own(operation) and bool(children(operation))


def is_opened(operation: Any) -> bool:
    """Return whether an operation is a layer that is opened, if it can be.

    That is one made of layers, one that no file gives back, because its config or what it says of
    its shapes leaves something out, and KerasHub's rotary positions, which int8 has ops for.

    Args:
        operation: A layer, or an operation of `keras.ops`.

    Returns:
        True or False.
    """
    if not _is_own(operation):
        return False
    rotates = keras.saving.get_registered_name(rule_class(operation)) == _ROTARY
    return bool(children(operation)) or rotates or not can_be_remade(operation)


def _is_own(operation: Any) -> bool:
    """Return whether it is a layer of a class that is neither Keras' nor ours, and no graph."""
    if not isinstance(operation, Layer) or is_graph(operation):
        return False
    kind = rule_class(operation)
    ours = keras.saving.get_registered_name(kind).startswith("tfcompress>")
    return not ours and kind.__module__.partition(".")[0] != "keras"


@dataclass
class Opener:
    """Opens the layers of one model and of those nested in it, each once.

    Attributes:
        filters: Which composite layers to open.
        taken: Names that the new model's operations have, or will have.
        opened: Path and type of each layer that is opened.
        kept: Path of each composite layer that stays whole, and why.
        twins: Id of a layer -> what stands for it in the new model, under a name of its own.
        inlined: Ids of nested models whose layers become layers of the outermost one.
    """

    NOT_SELECTED: ClassVar[str] = "not selected by `filters`"

    filters: Filters = None
    taken: set[str] = field(default_factory=set)
    opened: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    twins: dict[int, Any] = field(default_factory=dict)
    inlined: set[int] = field(default_factory=set)

    def build(self, model: keras.Model, lineage: Lineage = ()) -> keras.Model:
        """Return the new model.

        Args:
            model: A functional or sequential model.
            lineage: The models around this one and this one. Defaults to none: the outermost.
        """
        if not lineage:
            self.taken.update(node.name for node in all_nodes(model))
            self.inlined = _to_inline(model)
        named = isinstance(functional(model).output, dict)

        def call(node: Node, args: Any, kwargs: Any) -> Any:
            if node.call.is_input:
                return args[0]
            # An output that has no key has the name of the operation that makes it.
            end = not named and len(node.outputs) == 1 and None in node.consumers
            name = node.name
            return self.call(node.operation, args, kwargs, lineage, name, name if end else None)

        return rebuild(model, call, model.name)

    def call(
        self,
        operation: Any,
        args: Any,
        kwargs: Any,
        around: Lineage,
        name: str,
        end: str | None = None,
    ) -> Any:
        """Call an operation in the new model, or what is inside it.

        Args:
            operation: The operation of the model to open.
            args: Positional arguments, with tensors of the new model.
            kwargs: Keyword arguments, in the same form.
            around: The layers around it, outermost first.
            name: Its name in the new model, if it is not there yet.
            end: Name of the operation that gives the output of a layer that is opened. Defaults to
                None: any.

        Returns:
            The outputs, tensors of the new model.
        """
        if not isinstance(operation, Layer):
            if end is None and is_idle_cast(operation, args):
                return args[0]
            attend = written_out(operation)
            if attend is not None:
                recording = record(attend, args, kwargs)
                return self.replay(recording, args, kwargs, around, name, end)
            outputs = keras_private.renamed(operation, name)(*args, **kwargs)
            keras_private.set_dense(keras.tree.flatten(outputs))
            return outputs
        lineage = (*around, operation)
        if is_graph(operation):
            if id(operation) in self.inlined:
                return self.inline(operation, args, kwargs, lineage, name, end)
            if id(operation) not in self.twins:
                self.twins[id(operation)] = self.build(operation, lineage)
        elif id(operation) not in self.twins and is_opened(operation):
            path = "/".join(layer.name for layer in lineage)
            if not matches(self.filters, path, lineage):
                self.kept[path] = self.NOT_SELECTED
            else:
                try:
                    recording = record(operation, args, kwargs)
                except NotOpened as error:
                    self.kept[path] = str(error)
                else:
                    self.opened[path] = type(operation).__name__
                    plain = as_keras_layer(operation, args, kwargs)
                    if plain is None:
                        return self.replay(recording, args, kwargs, lineage, name, end)
                    self.adopt(operation, plain, name, lineage)
        function = own_activation(operation)
        if id(operation) not in self.twins:
            own = name if function is None or end is None else self.unique(f"{name}_linear")
            twin = self.adopt(operation, savable(operation), own, lineage)
            if function is not None:
                vars(twin)["activation"] = keras.activations.linear
            if isinstance(twin, keras.layers.EinsumDense):
                keras_private.infer_spec(twin)
        twin = self.twins[id(operation)]
        if type(twin) is not type(operation):
            kwargs = taken_by(type(twin), kwargs)
        outputs = twin(*args, **kwargs)
        if function is None:
            return outputs
        recording = record(function, (outputs,), {})
        return self.replay(recording, (outputs,), {}, lineage, name, end)

    def adopt(self, operation: Layer, layer: Layer, name: str, lineage: Lineage) -> Any:
        """Let a layer under another name stand for an operation in the new model."""
        self.twins[id(operation)] = twin = keras_private.renamed(layer, name)
        vars(twin)[Origin.NAME] = Origin(lineage)
        return twin

    def inline(
        self,
        model: keras.Model,
        args: Any,
        kwargs: Any,
        lineage: Lineage,
        prefix: str,
        end: str | None,
    ) -> Any:
        """Call in the new model what a nested model calls, and return the outputs."""
        graph = functional(model)
        given = given_inputs(model, args, kwargs)
        values = {id(old): new for old, new in zip(graph.inputs, given, strict=True)}
        last = [id(t) for t in graph.outputs]
        for node in nodes(model):
            if node.call.is_input:
                continue
            new_args, new_kwargs = node.call.arguments.fill_in(values)
            own = end if node.outputs == last else None
            name = own or self.free_name(prefix, node.operation)
            results = self.call(node.operation, new_args, new_kwargs, lineage, name, own)
            values.update(zip(node.outputs, keras.tree.flatten(results), strict=True))
        return keras.tree.map_structure(lambda tensor: values[id(tensor)], graph.output)

    def replay(
        self,
        recording: Recording,
        args: Any,
        kwargs: Any,
        lineage: Lineage,
        prefix: str,
        end: str | None,
    ) -> Any:
        """Call in the new model what a recording holds, and return the outputs."""
        given: list[Any] = []
        for tensor in keras.tree.flatten((args, kwargs)):
            if isinstance(tensor, keras.KerasTensor):
                mask = keras_private.mask_of(tensor)
                given += [tensor] if mask is None else [tensor, mask]
        values = {id(old): new for old, new in zip(recording.inputs, given, strict=True)}
        used = {
            id(x) for call in recording.calls for x in keras.tree.flatten([call.args, call.kwargs])
        }
        for variable, symbol in recording.weights:
            if id(symbol) in used:
                values[id(symbol)] = self.parameter(variable, lineage, prefix)(given[0])
        flat = keras.tree.flatten(recording.outputs)
        for call in recording.calls:
            inside = call.operation
            last = end is not None and [id(t) for t in flat] == [id(t) for t in call.outputs]
            name = end if last and end else self.free_name(prefix, inside)
            new_args, new_kwargs = keras.tree.map_structure(
                lambda x: values[id(x)] if isinstance(x, keras.KerasTensor) else x,
                (call.args, call.kwargs),
            )
            results = self.call(inside, new_args, new_kwargs, lineage, name, end if last else None)
            values.update(zip(map(id, call.outputs), keras.tree.flatten(results), strict=True))
        for tensor in flat:
            mask = keras_private.mask_of(tensor)
            if mask is not None:
                keras_private.set_mask(values[id(tensor)], values[id(mask)])
        values |= {
            id(x): self.constant(x, lineage, prefix)(given[0])
            for x in flat
            if not isinstance(x, keras.KerasTensor)
        }
        return keras.tree.map_structure(lambda tensor: values[id(tensor)], recording.outputs)

    def parameter(self, variable: Any, lineage: Lineage, prefix: str) -> Parameter:
        """Return the layer that gives a weight of a layer that is opened."""
        if id(variable) not in self.twins:
            self.twins[id(variable)] = (
                self.weight(variable, lineage, prefix)
                if isinstance(variable, keras.Variable)
                else self.constant(variable, lineage, prefix)
            )
        found: Parameter = self.twins[id(variable)]
        return found

    def constant(self, value: Any, lineage: Lineage, prefix: str) -> Parameter:
        """Return a layer that gives a constant."""
        weight = keras.Variable(value, trainable=False, name="constant")
        return self.weight(weight, lineage, prefix)

    def weight(self, variable: keras.Variable, lineage: Lineage, prefix: str) -> Parameter:
        """Return a new layer that gives a variable."""
        floats = keras.backend.is_float_dtype(variable.dtype)
        dtype = lineage[-1].dtype_policy if floats else variable.dtype
        name = self.unique(f"{prefix}_{variable.name}")
        layer = Parameter(variable.shape, variable, name=name, dtype=dtype)
        setattr(layer, Origin.NAME, Origin(lineage))
        return layer

    def free_name(self, prefix: str, operation: Any) -> str:
        """Return a name that tells where the operation was; the same one for each new model."""
        if id(operation) in self.twins:
            return str(self.twins[id(operation)].name)
        base = operation.name
        if not isinstance(operation, Layer):  # Keras counts them as long as the process lives.
            base = re.sub(r"_\d+$", "", base)
        return self.unique(f"{prefix}_{base}")

    def unique(self, name: str) -> str:
        """Return a name that no operation has, and take it."""
        found, count = name, 0
        while found in self.taken:
            count += 1
            found = f"{name}_{count}"
        self.taken.add(found)
        return found


def _to_inline(model: keras.Model) -> set[int]:
    """Return the ids of the nested models that hold layers to open, or layers that others hold.

    A nested model may be declared for any size and be called with a fixed one, which can be opened
    more often. A layer that two models hold would be two layers in a file.
    """
    holders: dict[int, set[int]] = {}
    found: set[int] = set()

    def look(part: keras.Model) -> bool:
        opens = False
        for node in nodes(part):
            operation = node.operation
            if is_graph(operation):
                opens |= look(operation)
            elif isinstance(operation, Layer) and not node.call.is_input:
                holders.setdefault(id(operation), set()).add(id(part))
                opens |= is_opened(operation)
        if opens:
            found.add(id(part))
        return opens

    look(model)
    shared = [around for around in holders.values() if len(around) > 1]
    return found.union(*shared) - {id(model)}
