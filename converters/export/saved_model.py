"""A Keras model -> a SavedModel that the TensorFlow converter reads."""

from __future__ import annotations

import contextlib
import keyword
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras

from tfcompress.converters.errors import ConversionError
from tfcompress.edge.system.scratch import raise_if_full
from tfcompress.model.layers import all_layers
from tfcompress.model.signature import Signature

from .free_sizes import how_to_fix_sizes
from .rewrites import rewrite
from .scope import exporting


def save_model(model: keras.Model, call: Signature, folder: Path) -> set[str]:
    """Trace a model once and save it.

    Args:
        model: A model in float32.
        call: Its inputs, and how to call it.
        folder: The folder to write.

    Returns:
        The types of the TensorFlow ops in the graph.

    Raises:
        ConversionError: The model cannot be traced for these inputs, or cannot be saved.
    """
    import tensorflow as tf

    _check_names(model)
    names = _parameters(s.name for s in call.inputs)
    specs = {
        parameter: tf.TensorSpec(s.shape, s.dtype, name=parameter)
        for parameter, s in zip(names, call.inputs, strict=True)
    }

    stand_ins = [] if _is_scope(model.name) else _stand_ins(model)

    def serve(**given: Any) -> dict[str, Any]:
        with _named("model", model, stand_ins) if stand_ins else contextlib.nullcontext():
            outputs = call.call({names[parameter]: value for parameter, value in given.items()})
        # With an identity each: two outputs may be one tensor, and an output may be an input.
        return {name: tf.identity(value) for name, value in outputs.items()}

    try:
        with exporting():
            traced = tf.function(serve, autograph=False).get_concrete_function(**specs)
    except ConversionError:
        raise
    except Exception as error:
        raise _not_traced(model, call, error) from error
    # The module holds the variables only: TensorFlow traces a function in it again, in training.
    module = tf.Module()
    captured = {id(tensor) for tensor in traced.captured_inputs}
    module.state = [v for v in traced.variables if id(v.handle) in captured]
    try:
        with quiet():
            tf.saved_model.save(module, str(folder), signatures=traced)
        rewrite(folder, names)
    except Exception as error:
        raise_if_full(str(error))
        raise ConversionError(
            f"Model '{model.name}' holds something that cannot be exported, such as a lookup "
            f"table: {error}"
        ) from error
    graph = traced.graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    return {node.op for node in nodes}


def _parameters(names: Iterable[str]) -> dict[str, str]:
    """Return a name that TensorFlow takes for a parameter -> the name of the input, for each."""
    parameters: dict[str, str] = {}
    for name in names:
        parameter = re.sub(r"^(?![a-zA-Z])", "arg_", re.sub(r"\W", "_", name, flags=re.ASCII))
        while parameter in parameters or parameter == "self" or keyword.iskeyword(parameter):
            parameter += "_"
        parameters[parameter] = name
    return parameters


def _check_names(model: keras.Model) -> None:
    """Check that TensorFlow takes the layers' names: where it does not, Keras loses its scopes."""
    odd = [
        repr(layer.name)
        for layer in all_layers(model)
        if layer is not model
        and not isinstance(layer, keras.layers.InputLayer)
        and not re.fullmatch(r"[\w.>\\-]*", layer.name, re.ASCII)
    ]
    if odd:
        raise ConversionError(
            f"Model '{model.name}' cannot be traced: TensorFlow takes letters from a to z, digits "
            f"and . _ - in the names of layers. Build the model with other names than "
            f"{', '.join(odd)}, and call new.set_weights(model.get_weights())."
        )


def _is_scope(name: str) -> bool:
    """Return whether TensorFlow takes a name for the outermost scope of a graph."""
    return re.fullmatch(r"[a-zA-Z0-9.][\w.-]*", name, re.ASCII) is not None


def _stand_ins(model: keras.Model) -> list[tuple[keras.Variable, Any]]:
    """Return for each variable one of the same value, without the name of the model in its own."""
    import tensorflow as tf

    return [(v, tf.Variable(keras.ops.convert_to_tensor(v))) for v in model.variables]


@contextlib.contextmanager
def _named(
    name: str, model: keras.Model, stand_ins: list[tuple[keras.Variable, Any]]
) -> Iterator[None]:
    """Trace a model under another name, and with other variables."""
    scope = keras.name_scope(name, caller=model)
    scope.name = model.name  # Keras opens no second scope for one caller and one name
    with scope, keras.StatelessScope(state_mapping=stand_ins):
        yield


def _not_traced(model: keras.Model, call: Signature, error: Exception) -> ConversionError:
    """Return the error for a model that cannot be traced."""
    said = re.sub(r"\x1b\[\d+m", "", str(error)).strip()  # Keras' errors hold colours
    start = f"Model '{model.name}' cannot be traced for inputs"
    how = how_to_fix_sizes(call.inputs)
    if how:
        # What TensorFlow says of a size that it does not know helps nobody.
        first, _, _ = said.partition("\n")
        return ConversionError(f"{start} of any size: {first} {how}")
    return ConversionError(f"{start} {[(s.name, s.shape, s.dtype) for s in call.inputs]}: {said}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep TensorFlow from logging where it saved the temporary files."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
