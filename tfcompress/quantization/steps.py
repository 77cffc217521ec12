"""Steps at the border of nested models.

The step of a quantized tensor, the distance between its neighbouring values, is a scalar tensor of
the graph. A layer that rounds a bias takes it as an input beside the tensor itself. A nested
quantization-aware model therefore takes `[inputs, *steps]` where layers in it need the steps of its
inputs, and gives `[outputs, *steps]` where layers behind it need those of its outputs.
"""

from __future__ import annotations

from typing import Any

import keras

from tfcompress.model.graph import functional

__all__ = ["is_step_input", "step_input", "step_inputs"]

_SUFFIX = "_int8_step"


def step_input(name: str) -> keras.KerasTensor:
    """Return a new symbolic input for the step of the input with this name."""
    return keras.Input(batch_shape=(), dtype="float32", name=f"{name}{_SUFFIX}")


def is_step_input(operation: Any) -> bool:
    """Return whether the operation is the input layer of a step."""
    return (
        isinstance(operation, keras.layers.InputLayer)
        and operation.batch_shape == ()
        and operation.name.endswith(_SUFFIX)
    )


def step_inputs(model: keras.Model) -> int:
    """Return how many steps a nested model takes behind its inputs."""
    return sum(t.shape == () and t.name.endswith(_SUFFIX) for t in functional(model).inputs)
