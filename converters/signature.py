"""What a Keras model takes and gives, by name, and how to call it that way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from .calibration import InputSpec
from .errors import ConversionError

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Signature:
    """Inputs of a model and how to hand them over.

    Attributes:
        inputs: In Keras' order, the batch axis first.
        call: Tensors by input name -> outputs by name, in inference mode.
    """

    inputs: tuple[InputSpec, ...]
    call: Callable[[Mapping[str, Any]], dict[str, Any]]


def check_model(model: object) -> keras.Model:
    """The same model, or an error that says why it is none that can be converted."""
    if isinstance(model, keras.Model):
        if not model.built:
            raise ConversionError(
                f"Model '{model.name}' is not built: its weights do not exist yet. Call it on a "
                "batch of data, or start it with keras.Input(shape)."
            )
        return model
    modules = {cls.__module__.split(".")[0] for cls in type(model).__mro__}
    if "tf_keras" in modules or "tensorflow" in modules:
        raise TypeError(
            f"{type(model).__name__} is a Keras 2 model (of tf_keras); Keras 3 is needed. Save its "
            "weights, build the same model with `import keras`, and load them there."
        )
    raise TypeError(
        "model must be a keras.Model. If it is a file, load it first with "
        f"keras.models.load_model(path). Received: model={model!r} of type {type(model).__name__}"
    )


def signature(model: keras.Model, batch_size: int | None = None) -> Signature:
    """Read the inputs off a model and make it callable by name.

    A functional model says it all. A subclassed one remembers the shapes that it was first called
    on; its inputs are then taken to be float32.

    Args:
        model: A built model.
        batch_size: Batch that the file will take. None keeps the one that a functional model
            declares, which is a free one unless `keras.Input(batch_size=...)` says otherwise.

    Returns:
        The signature.

    Raises:
        ConversionError: The inputs cannot be known, or are strings, sparse or ragged.
    """
    structure = _structure(model)
    tensors = keras.tree.flatten(structure)
    keep = batch_size is None and not isinstance(model, keras.Sequential)
    specs = []
    for tensor in tensors:
        dtype = _input_dtype(model, tensor)
        batch = tensor.shape[0] if keep or _is_stateful(model) else batch_size
        specs.append(InputSpec(tensor.name, (batch, *tensor.shape[1:]), dtype))
    several = _takes_several_arguments(model, structure)

    def call(named: Mapping[str, Any]) -> dict[str, Any]:
        packed = keras.tree.map_structure(lambda tensor: named[tensor.name], structure)
        outputs = model(**packed, training=False) if several else model(packed, training=False)
        return _named_outputs(model, outputs)

    return Signature(tuple(specs), call)


def _structure(model: keras.Model) -> Any:
    """Symbolic inputs in the structure that the model is called with."""
    if isinstance(model, keras.Sequential) or hasattr(model, "_inputs_struct"):
        structure = model.input
        for tensor in keras.tree.flatten(structure):
            if getattr(tensor, "sparse", False) or getattr(tensor, "ragged", False):
                raise ConversionError(
                    f"Input '{tensor.name}' of model '{model.name}' is sparse or ragged; a .tflite "
                    "file takes dense tensors only."
                )
        return structure
    shapes = _remembered_shapes(model)
    if not shapes:
        raise ConversionError(
            f"The inputs of the subclassed model '{model.name}' cannot be known: it has never been "
            "called. Call it on a batch of data first: model(batch)."
        )
    if len(shapes) == 1:
        ((argument, shape),) = shapes.items()
        return _symbolic(shape, _plain(argument))
    return {_plain(name): _symbolic(shape, _plain(name)) for name, shape in shapes.items()}


def _remembered_shapes(model: keras.Model) -> dict[str, Any]:
    """Argument -> the shape, or structure of shapes, that Keras built a subclassed model with."""
    recorded = getattr(model, "_build_shapes_dict", None)
    if not recorded:
        recorded = model.get_build_config() or {}
        recorded = recorded.get("shapes_dict", recorded)
    return {name: shape for name, shape in recorded.items() if shape is not None}


def _plain(argument: str) -> str:
    return argument.removesuffix("_shape")


def _is_shape(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(d, int | None) for d in value)


def _symbolic(shapes: Any, name: str) -> Any:
    if _is_shape(shapes):
        return keras.KerasTensor((None, *shapes[1:]), "float32", name=name)
    if isinstance(shapes, Mapping):
        return {key: _symbolic(shape, str(key)) for key, shape in shapes.items()}
    return [_symbolic(shape, f"{name}_{index}") for index, shape in enumerate(shapes)]


def _takes_several_arguments(model: keras.Model, structure: Any) -> bool:
    return (
        not hasattr(model, "_inputs_struct")
        and isinstance(structure, dict)
        and (len(_remembered_shapes(model)) > 1)
    )


def _input_dtype(model: keras.Model, tensor: Any) -> str:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if dtype == "string":
        raise ConversionError(
            f"Input '{tensor.name}' of model '{model.name}' takes strings. Leave the text "
            "preprocessing out of the model and give it token ids."
        )
    return str(dtype)


def _is_stateful(model: keras.Model) -> bool:
    return any(getattr(layer, "stateful", False) for layer in model.layers)


def _named_outputs(model: keras.Model, outputs: Any) -> dict[str, Any]:
    """Outputs by name: a dict's own keys, else the names of the layers that made them."""
    if isinstance(outputs, Mapping) and not any(
        keras.tree.is_nested(output) for output in outputs.values()
    ):
        return {str(key): value for key, value in outputs.items()}
    flat = keras.tree.flatten(outputs)
    if isinstance(model, keras.Sequential):
        names = [model.layers[-1].name]
    else:
        names = list(getattr(model, "output_names", []))
    if len(names) != len(flat):
        names = [f"output_{index}" for index in range(len(flat))]
    named: dict[str, Any] = {}
    for name, value in zip(names, flat, strict=True):
        unique, count = name, 0
        while unique in named:
            count += 1
            unique = f"{name}_{count}"
        named[unique] = value
    return named
