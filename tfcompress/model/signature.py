"""Signatures: the inputs and outputs of a Keras model by name, and how to call it by name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from .errors import ModelError
from .keras_private import has_graph, producer
from .samples import InputSpec

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Signature:
    """The inputs of a model, and a function that takes them by name.

    Attributes:
        inputs: Specs in Keras' order, with the batch axis first.
        call: Function from tensors by input name to outputs by name, in inference mode.
    """

    inputs: tuple[InputSpec, ...]
    call: Callable[[Mapping[str, Any]], dict[str, Any]]


def signature(model: keras.Model, batch_size: int | None = None) -> Signature:
    """Return the inputs of a model, and a function that calls it by their names.

    A functional model has its inputs' shapes and dtypes. A subclassed model has the shapes that it
    was first called on; its inputs are then taken to be float32.

    >>> inner = keras.Sequential([keras.Input((8,), name="x"), keras.layers.Dense(2)])
    >>> signature(inner).inputs
    (InputSpec(name='x', shape=(None, 8), dtype='float32'),)

    Args:
        model: A built model.
        batch_size: Batch size that the file will take. None (the default) keeps the one that a
            functional model declares: any, unless `keras.Input(batch_size=...)` fixed it.

    Returns:
        The signature.

    Raises:
        ModelError: The inputs cannot be known, or are strings, sparse or ragged.
    """
    structure = symbolic_inputs(model)
    keep = batch_size is None and not isinstance(model, keras.Sequential)
    specs = []
    for tensor in keras.tree.flatten(structure):
        batch = tensor.shape[0] if keep or _is_stateful(model) else batch_size
        shape = (batch, *tensor.shape[1:])
        specs.append(InputSpec(_input_name(tensor), shape, _input_dtype(model, tensor)))

    _check_names(model, specs)

    def call(named: Mapping[str, Any]) -> dict[str, Any]:
        packed = keras.tree.map_structure(lambda tensor: named[_input_name(tensor)], structure)
        return _named_outputs(model, model(packed, training=False))

    return Signature(tuple(specs), call)


def _input_name(tensor: Any) -> str:
    """Return the name of the input's layer; an unnamed tensor gets another name when reloaded."""
    layer = producer(tensor)
    return _plain(tensor.name if layer is None else layer.name)


def _check_names(model: keras.Model, specs: list[InputSpec]) -> None:
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise ModelError(
                f"Two inputs of model '{model.name}' would both be called '{name}' in the file, "
                "where a name has letters, digits and underscores only. Rename one."
            )


def _plain(name: str) -> str:
    """Return a name in letters, digits and underscores, as in a file's signature."""
    return re.sub(r"^(?=\d)", "arg_", re.sub(r"\W", "_", name))


def symbolic_inputs(model: keras.Model) -> Any:
    """Return symbolic inputs in the structure that the model is called with.

    Raises:
        ModelError: The inputs cannot be known, or are sparse or ragged.
    """
    if isinstance(model, keras.Sequential) or has_graph(model):
        sequential = isinstance(model, keras.Sequential)
        structure = model.inputs[0] if sequential else model.input
        for tensor in keras.tree.flatten(structure):
            if getattr(tensor, "sparse", False) or getattr(tensor, "ragged", False):
                raise ModelError(
                    f"Input '{tensor.name}' of model '{model.name}' is sparse or ragged; a .tflite "
                    "file takes dense tensors only."
                )
        return structure
    shapes = model.get_build_config()
    if not shapes or not model.variables:
        raise ModelError(
            f"The inputs of the subclassed model '{model.name}' cannot be known: it has never been "
            "called. Call it on a batch of data first: model(batch)."
        )
    arguments = [
        parameter.name
        for parameter in inspect.signature(model.call).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        and parameter.name not in ("training", "mask")
    ]
    if len(arguments) != 1 or "input_shape" not in shapes:
        raise ModelError(
            f"The inputs of the subclassed model '{model.name}' cannot be known: its `call` takes "
            f"{arguments}. Wrap it in a functional model, such as: a = keras.Input(shape); "
            "b = keras.Input(shape); wrapped = keras.Model([a, b], model(a, b))"
        )
    return _symbolic(shapes["input_shape"], arguments[0])


def _is_shape(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(d, int | None) for d in value)


def _symbolic(shapes: Any, name: str) -> Any:
    if _is_shape(shapes):
        return keras.KerasTensor((None, *shapes[1:]), "float32", name=name)
    if isinstance(shapes, Mapping):
        return {key: _symbolic(shape, str(key)) for key, shape in shapes.items()}
    return [_symbolic(shape, f"{name}_{index}") for index, shape in enumerate(shapes)]


def _input_dtype(model: keras.Model, tensor: Any) -> str:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if dtype == "string":
        raise ModelError(
            f"Input '{tensor.name}' of model '{model.name}' takes strings. Leave the text "
            "preprocessing out of the model and give it token ids."
        )
    return str(dtype)


def _is_stateful(model: keras.Model) -> bool:
    return any(getattr(layer, "stateful", False) for layer in model.layers)


def _named_outputs(model: keras.Model, outputs: Any) -> dict[str, Any]:
    """Return outputs by name: the keys of a dict, else the names of the layers that made them."""
    flat = keras.tree.flatten(outputs)
    if isinstance(outputs, Mapping) and len(flat) == len(outputs):
        flat, names = list(outputs.values()), list(map(str, outputs))
    elif isinstance(model, keras.Sequential):
        names = [model.layers[-1].name]
    else:
        names = list(getattr(model, "output_names", []))
    if len(names) != len(flat):
        names = [f"output_{index}" for index in range(len(flat))]
    return dict(zip(unique_names(map(_plain, names)), flat, strict=True))


def unique_names(names: Iterable[str]) -> list[str]:
    """Return names with a number behind those that were there before.

    >>> unique_names(["a", "b", "a"])
    ['a', 'b', 'a_1']
    """
    found: list[str] = []
    for name in names:
        unique, count = name, 0
        while unique in found:
            count += 1
            unique = f"{name}_{count}"
        found.append(unique)
    return found
