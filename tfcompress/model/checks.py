"""Checks of a model before anything is done with it: Keras 3, built, finite."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfcompress.edge.arguments import check_function, refuse

from .errors import ModelError

__all__ = [
    "check_built",
    "check_finite",
    "check_finite_array",
    "check_loss",
    "check_no_keras_2",
]


def check_built(model: object, argument: str = "model") -> keras.Model:
    """Return the model, or raise if it is not a built Keras 3 model.

    >>> check_built(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])).built
    True

    Args:
        model: Any object.
        argument: Name of the argument, for the error. Defaults to `"model"`.

    Returns:
        The same object.

    Raises:
        TypeError: It is no model of Keras 3.
        ModelError: It is not built, or one of its weights has a size of 0.
    """
    if not isinstance(model, keras.Model):
        check_no_keras_2(model)
        place = "" if argument == "model" else f" as `{argument}`"
        raise TypeError(
            f"Expected a keras.Model{place}. Received: {model!r} of type {type(model).__name__}. "
            "If it is a file, load it first with keras.models.load_model(path)."
        )
    if not model.built:
        raise ModelError(
            f"The model {model.name!r} is not built, so it has no weights yet. Start it with "
            "keras.Input(shape), or call it on a batch of data first."
        )
    for weight in model.weights:
        if 0 in weight.shape:
            raise ModelError(
                f"The weight {weight.path!r} of model {model.name!r} has the shape "
                f"{tuple(weight.shape)}, which holds no number. Build the model anew, without a "
                "size of 0."
            )
    return model


def check_no_keras_2(model: object) -> None:
    """Raise if a model is one of Keras 2.

    >>> check_no_keras_2(keras.Sequential())

    Args:
        model: Any object.

    Raises:
        TypeError: It is such a model; the message says what to do.
    """
    modules = {cls.__module__.split(".")[0] for cls in type(model).__mro__}
    if not isinstance(model, keras.Model) and modules & {"tf_keras", "tensorflow"}:
        raise TypeError(
            f"{type(model).__name__} is a Keras 2 model (of tf_keras); Keras 3 is needed. Save "
            "its weights, build the same model with `import keras`, and load them there."
        )


def check_loss(name: str, loss: object) -> None:
    """Raise if a value is no loss of Keras: a `Loss`, its name, its config or a function.

    >>> check_loss("loss", "mse")

    Args:
        name: Name of the argument.
        loss: What was given.

    Raises:
        TypeError: It is none of these.
        ValueError: Keras has no loss of this name.
    """
    wanted = 'a Keras loss, its name such as "mse", or a function that takes (y_true, y_pred)'
    if isinstance(loss, str | dict):
        try:
            keras.losses.get(loss)
        except (TypeError, ValueError, KeyError):
            refuse(name, wanted, loss)
    elif not isinstance(loss, keras.losses.Loss):
        if not callable(loss):
            refuse(name, wanted, loss, TypeError)
        check_function(name, loss, "y_true", "y_pred")


def check_finite(model: keras.Model) -> None:
    """Raise if a weight of a model holds NaN or infinity.

    >>> check_finite(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))

    Args:
        model: A built model.

    Raises:
        ModelError: A weight does; the message names the first one.
    """
    for variable in model.variables:
        if keras.backend.is_float_dtype(variable.dtype):
            values = keras.ops.convert_to_numpy(variable)
            check_finite_array(f"Weight {variable.path!r} of model {model.name!r}", values)


def check_finite_array(name: str, values: npt.NDArray[Any]) -> None:
    """Raise if an array of weights holds NaN or infinity.

    >>> check_finite_array("Weight 'dense/kernel'", np.array([1.0, np.nan]))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    tfcompress.model.errors.ModelError: Weight 'dense/kernel' holds 1 NaN or infinite value(s) ...

    Args:
        name: What to call the array in the message.
        values: Array of floats.

    Raises:
        ModelError: It does; the message says in how many values.
    """
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise ModelError(
            f"{name} holds {bad} NaN or infinite value(s) of {values.size}. Training has probably "
            "diverged: go back to an earlier checkpoint."
        )
