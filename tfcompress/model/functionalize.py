"""A subclassed model -> a functional one over the same layers, where that is sound."""

from __future__ import annotations

import inspect

import keras

from .checks import check_built
from .errors import ModelError
from .graph import functional, is_graph
from .signature import symbolic_inputs

__all__ = ["as_functional", "with_graph"]

_WHAT_TO_DO = (
    "Build it with the functional API instead: x = keras.Input(shape); "
    "model = keras.Model(x, your_layers(x))."
)


def with_graph(model: keras.Model) -> keras.Model:
    """The model itself if its graph can be read, else a functional one over the same layers.

    Args:
        model: A built model.

    Returns:
        A functional or sequential model.

    Raises:
        TypeError: It is no Keras model.
        ValueError: It is not built, or subclassed and cannot be read off its `call`.
    """
    check_built(model)
    if not (isinstance(model, keras.Sequential) or is_graph(model)):
        model = as_functional(model)
    functional(model)
    return model


def as_functional(model: keras.Model) -> keras.Model:
    """Call a subclassed model on symbolic inputs, and keep the graph of layers that this leaves.

    Sound only if the graph is the same in training: a `call` that takes `training` may branch on
    it, and weights that are the model's own are in no layer. Both are refused. A `train_step` of
    the class is not part of the graph.

    Args:
        model: A built subclassed model, called on data before so that its inputs are known.

    Returns:
        A functional model with the same layers.

    Raises:
        ValueError: The model cannot be read so; says why, and what to do.
    """
    kind = f"The model {model.name!r} is subclassed ({type(model).__name__})"
    if "training" in inspect.signature(model.call).parameters:
        raise ValueError(
            f"{kind}, and its `call` takes `training`: what it does then cannot be read off. Leave "
            f"the argument out, since layers such as Dropout know by themselves. Or: {_WHAT_TO_DO}"
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
            f"{kind}, and its `call` cannot be read off: {error}. {_WHAT_TO_DO}"
        ) from error
    inside = {id(variable) for variable in graph.variables}
    lost = [v.path for v in model.variables if id(v) not in inside]
    if lost:
        raise ValueError(
            f"{kind} and has weights outside its layers, or in layers that its `call` does not "
            f"use: {', '.join(lost)}. Put them into layers. Or: {_WHAT_TO_DO}"
        )
    # A loss of the class's own cannot be taken over.
    if getattr(model, "compiled", False) and type(model).compute_loss is keras.Model.compute_loss:
        graph.compile(loss=model.loss)
    return graph
