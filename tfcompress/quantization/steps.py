"""Steps at the border of nested models.

The step of a quantized tensor, the distance between its neighbouring values, is a scalar tensor of
the graph. A layer that rounds a bias takes it as an input beside the tensor itself. A nested
quantization-aware model therefore takes `[inputs, *steps]` where layers in it need the steps of its
inputs, and gives `[outputs, *steps]` where layers behind it need those of its outputs.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfcompress.model.graph import functional
from tfcompress.model.keras_private import producer
from tfcompress.model.quantized import STEP_SUFFIX, is_step_input

__all__ = ["step_input", "step_inputs", "unknown_step"]


def step_input(name: str) -> keras.KerasTensor:
    """Return a new symbolic input for the step of the input with this name."""
    return keras.Input(batch_shape=(), dtype="float32", name=f"{name}{STEP_SUFFIX}")


def unknown_step(tensor: Any) -> Any:
    """Return the step of a tensor that is not quantized, which is 0: no bias is rounded by it."""
    # A functional model has no constants: this zero is computed from the tensor.
    return ops.cast(ops.sum(ops.zeros_like(tensor)), "float32")


def step_inputs(model: keras.Model) -> int:
    """Return how many steps a nested model takes behind its inputs."""
    return sum(is_step_input(producer(tensor)) for tensor in functional(model).inputs)
