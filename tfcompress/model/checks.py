"""Checks of a model before anything is done with it: Keras 3, built, finite."""

from __future__ import annotations

import keras
import numpy as np

from .errors import ModelError

__all__ = ["check_built", "check_finite"]


def check_built(model: object) -> keras.Model:
    """Return the model, or raise if it is no Keras 3 model that has its weights.

    >>> check_built(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])).built
    True

    Args:
        model: Anything.

    Returns:
        The same object.

    Raises:
        TypeError: If it is no model of Keras 3.
        ModelError: If it is not built.
    """
    if not isinstance(model, keras.Model):
        modules = {cls.__module__.split(".")[0] for cls in type(model).__mro__}
        if "tf_keras" in modules or "tensorflow" in modules:
            raise TypeError(
                f"{type(model).__name__} is a Keras 2 model (of tf_keras); Keras 3 is needed. Save "
                "its weights, build the same model with `import keras`, and load them there."
            )
        raise TypeError(
            f"Expected a keras.Model. Received: {model!r} of type {type(model).__name__}. If it "
            "is a file, load it first with keras.models.load_model(path)."
        )
    if not model.built:
        raise ModelError(
            f"The model {model.name!r} is not built, so it has no weights yet. Start it with "
            "keras.Input(shape), or call it on a batch of data first."
        )
    return model


def check_finite(model: keras.Model) -> None:
    """Raise if a weight holds NaN or infinity.

    >>> check_finite(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))

    Args:
        model: A built model.

    Raises:
        ModelError: If a weight does; the message names the first one.
    """
    for variable in model.variables:
        if not keras.backend.is_float_dtype(variable.dtype):
            continue
        values = keras.ops.convert_to_numpy(variable)
        bad = values.size - int(np.isfinite(values).sum())
        if bad:
            raise ModelError(
                f"Weight {variable.path!r} of model {model.name!r} holds {bad} NaN or infinite "
                f"value(s) of {values.size}. Training has probably diverged: go back to an "
                "earlier checkpoint."
            )
