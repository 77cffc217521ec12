"""Read the outputs of layers inside a model, and find out how a model ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from tfcompress.model.graph import Node, functional, is_graph, nodes
from tfcompress.model.keras_private import forget_calls, number_of_calls, producer
from tfcompress.model.quantized import LayerQuantizer, TensorQuantizer, is_step_input
from tfcompress.model.rebuild import rebuild

__all__ = ["End", "Place", "attention_at", "end", "extract", "layer_at", "output_of"]

_ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
_RESHAPING = (
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.Identity,
    keras.layers.Permute,
    keras.layers.Reshape,
)


@dataclasses.dataclass(frozen=True)
class Place:
    """A tensor inside a model.

    Attributes:
        path: Path of the layer: names of nested models and its own name, joined by slashes.
        scores: Whether it is the layer's attention scores instead of its output. Defaults to False.
    """

    path: str
    scores: bool = False


def extract(model: keras.Model, places: Mapping[str, Place]) -> keras.Model:
    """Return a model over the same layers whose outputs are `"output"` and the places, by name.

    Args:
        model: A functional or sequential model.
        places: Places by name. If a layer is called more than once, its first call counts.

    Returns:
        A functional model that shares all layers with `model`.
    """
    found: dict[str, Any] = {}
    before = [(node.operation, number_of_calls(node.operation)) for node in nodes(model)]

    def call(node: Node, args: Any, kwargs: Any) -> Any:
        operation = node.operation
        here = {key: place for key, place in places.items() if place.path == node.name}
        prefix = f"{node.name}/"
        inside = {
            key: Place(place.path.removeprefix(prefix), place.scores)
            for key, place in places.items()
            if place.path.startswith(prefix)
        }
        if node.call.is_input:
            result = args[0]
        elif inside and is_graph(operation):
            outputs = extract(operation, inside)(*args, **kwargs)
            result = outputs.pop("output")
            for key, value in outputs.items():
                found.setdefault(key, value)
        elif any(place.scores for place in here.values()):
            asked = kwargs.pop("return_attention_scores", False)
            result, scores = _WithScores(operation)(*args, **kwargs)
            for key, place in here.items():
                found.setdefault(key, scores if place.scores else result)
            result = (result, scores) if asked else result
        else:
            result = operation(*args, **kwargs)
        for key in here:
            found.setdefault(key, result)
        return result

    new = rebuild(model, call, model.name)
    extractor = keras.Model(new.input, {"output": new.output, **found}, name=model.name)
    for operation, count in before:  # The layers are the user's: their calls stay those they had.
        forget_calls(operation, count)
    return extractor


class _WithScores(keras.layers.Layer):  # type: ignore[misc]
    """An attention layer that also returns its scores.

    Keras assumes that each call of a layer in a graph has as many outputs as the first call, so
    another layer is needed.
    """

    def __init__(self, layer: keras.layers.Layer) -> None:
        super().__init__(dtype=layer.dtype_policy, autocast=False)
        self.layer = layer
        self.supports_masking = True
        self.built = True

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer(*args, return_attention_scores=True, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_spec(*args, return_attention_scores=True, **kwargs)


def layer_at(model: keras.Model, name: str, role: str = "model") -> tuple[str, Node]:
    """Return the path and the first call of the layer with a name, also in nested models.

    In a quantization-aware model, the rounded output of a layer has the layer's name, with or
    without "fake_quant_" before it. It is found by the layer's name.

    Args:
        model: A functional or sequential model.
        name: The layer's path, or its own name if only one layer has it.
        role: What to call the model in an error. Defaults to "model".

    Returns:
        The path and the node.

    Raises:
        ValueError: The model has no graph, or no layer or several layers have the name.
    """
    found = dict(_places(model))
    prefix, slash, own = name.rpartition("/")
    rounded = f"fake_quant_{own}"
    for path in (name, f"{prefix}{slash}{rounded}"):
        if path in found:
            return path, found[path]
    named = [path for path in found if path.rpartition("/")[2] == name]
    named = named or [path for path in found if path.rpartition("/")[2] == rounded]
    if len(named) == 1:
        return named[0], found[named[0]]
    if named:
        raise ValueError(
            f"The {role} {model.name!r} has several layers named {name!r}. Give the path of one: "
            f"{', '.join(named)}."
        )
    raise ValueError(
        f"The {role} {model.name!r} has no layer named {name!r}. There are: {', '.join(found)}."
    )


def attention_at(
    model: keras.Model, name: str, role: str = "model"
) -> tuple[Place, tuple[int | None, ...]]:
    """Return where the attention scores of a layer are, and their sizes.

    The layer may be quantization-aware, or the softmax of attention that is written out.

    Args:
        model: A functional or sequential model.
        name: The layer's path, or its own name if only one layer has it.
        role: What to call the model in an error. Defaults to "model".

    Returns:
        The place, and the sizes of the batch, of the queries, and of what comes last.

    Raises:
        ValueError: No layer or several layers have the name, or the layer has no attention scores.
    """
    path, node = layer_at(model, name, role)
    if isinstance(node.operation, TensorQuantizer):
        # The rounding has the layer's name, and follows it.
        path, node = _before(model, path, node)
    layer = node.operation.layer if isinstance(node.operation, LayerQuantizer) else node.operation
    shape = tuple(node.tensors[0].shape)
    if isinstance(layer, _ATTENTION):
        return Place(path, scores=True), shape
    # Whether it is of keras.layers or of keras.ops: (samples, heads, ..., queries, keys).
    if type(layer).__name__ == "Softmax" and len(shape) >= 4:
        return Place(path), (shape[0], *shape[-2:])
    raise ValueError(
        f"Layer {name!r} of the {role} {model.name!r} has no attention scores: it is no "
        "MultiHeadAttention or GroupQueryAttention, and no Softmax over (samples, heads, "
        f"queries, keys), but a {type(layer).__name__}. What a layer is made of, open_layers shows."
    )


def output_of(model: keras.Model, name: str | None, role: str = "model") -> Any:
    """Return the symbolic output of the layer with a name, or of the model if it is None.

    Raises:
        ValueError: No layer or several layers have the name, or there are several outputs.
    """
    if name is None:
        outputs = list(functional(model).outputs)
    else:
        # A nested quantization-aware model also gives the steps of its outputs, which are scalars.
        outputs = [t for t in layer_at(model, name, role)[1].tensors if t.shape != ()]
    if len(outputs) != 1:
        what = f"The {role} {model.name!r}" if name is None else f"Layer {name!r} of the {role}"
        names = f" Name the layer of one: {', '.join(ends(model))}." if name is None else ""
        raise ValueError(f"{what} has {len(outputs)} outputs, where one is needed.{names}")
    return outputs[0]


def ends(model: keras.Model) -> list[str]:
    """Return the names of the layers that the model's outputs come from."""
    return [producer(tensor).name for tensor in functional(model).outputs]


@dataclasses.dataclass(frozen=True)
class End:
    """How a model or a layer ends.

    Attributes:
        place: Where the output is before it is rounded to int8; None for the model's output.
        activation: Name of the activation there: `"softmax"`, `"linear"` after a layer with a
            kernel, another name, or `""` if it is unknown.
        rounded: Whether the activation's output is rounded to int8 before that place.
    """

    place: Place | None
    activation: str
    rounded: bool = False


def end(model: keras.Model, name: str | None, role: str = "model") -> End:
    """Return how a model or one of its layers ends.

    Args:
        model: A model.
        name: Name of the layer; None for the model's single output.
        role: What to call the model in an error. Defaults to "model".

    Returns:
        The end.

    Raises:
        ValueError: No layer or several layers have the name, or there are several outputs.
    """
    if name is None and not (isinstance(model, keras.Sequential) or is_graph(model)):
        return End(None, "")
    output_of(model, name, role)
    rounded = False
    path, node = layer_at(model, ends(model)[0] if name is None else name, role)
    while True:
        operation = node.operation
        if is_graph(operation) and sum(t.shape != () for t in operation.outputs) == 1:
            inner, node = layer_at(operation, ends(operation)[0])
            path = f"{path}/{inner}"
        elif isinstance(operation, TensorQuantizer):
            path, node = _before(model, path, node)
            rounded = True
        else:
            break
    place = Place(path) if rounded or name is not None else None
    rounded = False
    while True:
        activation = _activation(node)
        if activation is not None or node.call.is_input:
            return End(place, activation or "", rounded)
        path, node = _before(model, path, node)
        rounded = rounded or isinstance(node.operation, TensorQuantizer)


def _activation(node: Node) -> str | None:
    """Return the activation of the last layer in a call that changes values, or None."""
    operation = node.operation
    layers = [operation]
    if isinstance(operation, LayerQuantizer):
        if operation.activation is not None:
            return str(operation.activation.__name__)
        layers = [*reversed(operation.then), operation.layer]
    names = (_activation_of(layer, len(node.tensors[0].shape)) for layer in layers)
    return next((name for name in names if name is not None), None)


def _activation_of(layer: Any, rank: int) -> str | None:
    if isinstance(layer, (TensorQuantizer, *_RESHAPING)):
        return None
    kind = type(layer).__name__  # keras.ops has a Softmax too.
    if kind in ("Softmax", "LogSoftmax"):
        if getattr(layer, "axis", -1) not in (-1, rank - 1):
            return ""
        # The logarithm of a softmax differs from the logits by a constant, so it serves as logits.
        return "softmax" if kind == "Softmax" else "linear"
    activation = getattr(layer, "activation", None)
    if activation is keras.activations.linear:
        return None if isinstance(layer, keras.layers.Activation) else "linear"
    return str(getattr(activation, "__name__", ""))


def _before(model: keras.Model, path: str, node: Node) -> tuple[str, Node]:
    """Return the path and the call that the first input of a call comes from."""
    prefix, slash, _ = path.rpartition("/")
    around = layer_at(model, prefix)[1].operation if prefix else model
    for other in nodes(around):
        if node.inputs[0] in other.outputs:
            return f"{prefix}{slash}{other.name}", other
    raise AssertionError(f"nothing gives the input of {path!r}")


def _places(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, Node]]:
    seen = set()
    for node in nodes(model):
        path = f"{prefix}{node.name}"
        if path in seen or is_step_input(node.operation):
            continue
        seen.add(path)
        yield path, node
        if is_graph(node.operation):
            yield from _places(node.operation, f"{path}/")
