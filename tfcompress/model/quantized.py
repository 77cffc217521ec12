"""Base classes by which all packages recognize quantization-aware layers.

So they need not import `tfcompress.quantization`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from .layers import walk

__all__ = ["STEP_SUFFIX", "LayerQuantizer", "TensorQuantizer", "is_quantized", "is_step_input"]

STEP_SUFFIX = "_int8_step"
"""What the names of a nested model's inputs for steps end with; see `quantization.steps`."""


class TensorQuantizer:
    """A layer that only rounds a tensor to integers, such as `FakeQuant`."""


class LayerQuantizer:
    """A layer that computes another layer as its integer op does, such as `QuantizeWrapper`.

    Attributes:
        layer: The layer inside.
        then: Layers that follow it in the same op.
        activation: Activation that was taken out of the layer, if any.
    """

    layer: keras.layers.Layer
    then: list[keras.layers.Layer]
    activation: Callable[[Any], Any] | None

    def why_float(self) -> str | None:
        """Return why the layer is computed in float in the file, or None if it is not."""
        raise NotImplementedError


def is_step_input(operation: Any) -> bool:
    """Return whether it is an input layer that only a quantization-aware model has.

    A nested one takes the step of a quantized tensor beside the tensor.
    """
    return (
        isinstance(operation, keras.layers.InputLayer)
        and operation.batch_shape == ()
        and operation.name.endswith(STEP_SUFFIX)
    )


def is_quantized(model: keras.Model) -> bool:
    """Return whether the model holds layers from `quantize_aware`.

    >>> is_quantized(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
    False

    Args:
        model: A built model.

    Returns:
        True if a layer rounds, nested ones included.
    """
    ours = (LayerQuantizer, TensorQuantizer)
    return any(isinstance(lineage[-1], ours) for _, lineage in walk(model) if lineage)
