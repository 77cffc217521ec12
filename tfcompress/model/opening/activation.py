"""The activation of a layer, where it is a function that Keras does not know."""

from __future__ import annotations

from typing import Any

import keras
from keras.layers import Layer

from tfcompress.model.layers import rule_class

from .calls import NotOpened
from .recording import record

__all__ = ["own_activation"]


def own_activation(layer: Layer) -> Any:
    """Return the activation of a layer if it is a function that Keras does not know, else None.

    No method sees through a function, but all know the operations that it calls.

    >>> own_activation(keras.layers.Dense(2, activation="gelu")) is None
    True

    Args:
        layer: A built layer.

    Returns:
        The function, if it can be recorded and keeps the shape of what it is given, else None.
    """
    function = getattr(layer, "activation", None)
    known = getattr(keras.activations, getattr(function, "__name__", ""), None)
    if function is None or function is known or rule_class(layer) not in _WITH_ACTIVATION:
        return None
    x = keras.KerasTensor((None, 4), layer.compute_dtype)
    try:
        outputs = record(function, (x,), {}).outputs
    except NotOpened:
        return None
    same = isinstance(outputs, keras.KerasTensor) and outputs.shape == x.shape
    return function if same and outputs.dtype == x.dtype else None


_WITH_ACTIVATION = (
    *(keras.layers.Activation, keras.layers.Dense, keras.layers.EinsumDense),
    *(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D),
)
