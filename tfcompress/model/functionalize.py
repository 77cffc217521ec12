"""Subclassed models as functional ones over the same layers, where that is sound."""

from __future__ import annotations

import inspect

import keras

from .checks import check_built
from .errors import ModelError
from .graph import all_nodes, functional, is_graph
from .opening.opener import Opener, is_opened
from .signature import symbolic_inputs

__all__ = ["as_functional", "with_graph"]

_WHAT_TO_DO = (
    "Build it with the functional API instead: x = keras.Input(shape); "
    "model = keras.Model(x, your_layers(x))."
)


def with_graph(model: keras.Model, whole: bool = False) -> keras.Model:
    """Return a model if its graph can be read, else a functional one over the same weights.

    Layers that hold layers are opened; see `opening.open_layers`.

    Args:
        model: A built model.
        whole: Whether layers that hold layers stay as they are. Defaults to False.

    Returns:
        A functional or sequential model.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: It is not built, or it is subclassed and its `call` cannot be traced.
    """
    check_built(model)
    if not (isinstance(model, keras.Sequential) or is_graph(model)):
        model = as_functional(model)
    functional(model)
    if whole or not any(is_opened(node.operation) for node in all_nodes(model)):
        return model
    opened = Opener().build(model)
    _compile_as(opened, model)
    return opened


def as_functional(model: keras.Model) -> keras.Model:
    """Return the functional model that a call of a subclassed model on symbolic inputs records.

    This is sound only if training runs the same graph. So two kinds of model raise an error: those
    whose `call` takes `training`, which it may branch on, and those with weights outside of layers.
    The class's own `train_step` is not part of the graph.

    Args:
        model: A built subclassed model that has been called on data, so that its inputs are known.

    Returns:
        A functional model with the same layers.

    Raises:
        ValueError: The model cannot be read; the message says why, and what to do.
    """
    kind = f"The model {model.name!r} is subclassed ({type(model).__name__})"
    if "training" in inspect.signature(model.call).parameters:
        raise ValueError(
            f"{kind}, and its `call` takes `training`: what it then does is in no graph. Leave "
            f"the argument out; layers such as Dropout get it from Keras. Or: {_WHAT_TO_DO}"
        )
    try:
        structure = symbolic_inputs(model)
        inputs = keras.tree.map_structure(
            lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name), structure
        )
        graph = keras.Model(inputs, model.call(inputs), name=model.name)
    except ModelError as error:
        raise ValueError(f"{kind}. {error}") from error
    except Exception as error:
        raise ValueError(
            f"{kind}, and its `call` cannot be traced: {error}. {_WHAT_TO_DO}"
        ) from error
    inside = {id(variable) for variable in graph.variables}
    lost = [v.path for v in model.variables if id(v) not in inside]
    if lost:
        raise ValueError(
            f"{kind} and has weights outside its layers, or in layers that its `call` does not "
            f"use: {', '.join(lost)}. Put them into layers. Or: {_WHAT_TO_DO}"
        )
    _compile_as(graph, model)
    return graph


def _compile_as(graph: keras.Model, model: keras.Model) -> None:
    # A class's own `compute_loss` cannot be copied.
    if getattr(model, "compiled", False) and type(model).compute_loss is keras.Model.compute_loss:
        graph.compile(loss=model.loss)
