"""A Keras model -> a SavedModel that the TensorFlow converter reads."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from tfcompress.converters.errors import ConversionError
from tfcompress.model.signature import Signature

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

    specs = {s.name: tf.TensorSpec(s.shape, s.dtype, name=s.name) for s in call.inputs}

    def serve(**named: Any) -> dict[str, Any]:
        # With an identity each: two outputs may be one tensor, and an output may be an input.
        return {name: tf.identity(value) for name, value in call.call(named).items()}

    try:
        with exporting():
            traced = tf.function(serve, autograph=False).get_concrete_function(**specs)
    except ConversionError:
        raise
    except Exception as error:
        raise ConversionError(
            f"Model '{model.name}' cannot be traced for inputs "
            f"{[(s.name, s.shape, s.dtype) for s in call.inputs]}: {error}"
        ) from error
    # The module holds the variables only: TensorFlow traces a function in it again, in training.
    module = tf.Module()
    captured = {id(tensor) for tensor in traced.captured_inputs}
    module.state = [v for v in traced.variables if id(v.handle) in captured]
    try:
        with _quiet():
            tf.saved_model.save(module, str(folder), signatures=traced)
    except Exception as error:
        raise ConversionError(
            f"Model '{model.name}' holds something that cannot be exported, such as a lookup "
            f"table: {error}"
        ) from error
    graph = traced.graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    return {node.op for node in nodes}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep TensorFlow from logging where it saved the temporary files."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
