"""Importances of channels by name, with what each of them needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt

from tfcompress.edge.arguments import check_function
from tfcompress.model.checks import check_loss
from tfcompress.model.registry import Registry

from .groups import ChannelGroup

__all__ = ["IMPORTANCES", "ChannelImportance", "Scores", "get", "register"]

Scores: TypeAlias = list[npt.NDArray[np.float64]]

ChannelImportance: TypeAlias = Callable[[keras.Model, Sequence[ChannelGroup]], Scores]
"""A model and its groups in, a score for each unit of each group out; the lowest are cut first."""

IMPORTANCES: Registry[Callable[..., Any]] = Registry(
    "importance of channels", needs=("weights", "data", "loss")
)
"""Every importance of channels by name, with what it needs.

- `"weights"`: the function is a `ChannelImportance` itself.
- `"data"`: the function takes inputs, `f(x)`, and returns a `ChannelImportance`.
- `"loss"`: the function takes inputs, targets and a loss, `f(x, y, loss)`, and returns one.
"""

register = IMPORTANCES.register


def get(
    importance: str | ChannelImportance, data: Any = None, loss: Any = None
) -> ChannelImportance:
    """Return an importance by name, made with the data that it needs, or a function as it is.

    >>> from tfcompress import importance
    >>> importance.get("l2_norm") is importance.l2_norm
    True
    >>> taylor = importance.get("taylor", (np.ones((8, 3)), np.ones((8, 1))), "mse")

    Args:
        importance: Name of a registered importance, or a function from a model and its groups to
            scores.
        data: For a name that needs data: inputs `x`, a tuple `(x, y)` of inputs and targets, or a
            `tf.data.Dataset` or `keras.utils.PyDataset` that yields batches. `x` and `y` are
            arrays, or lists or dictionaries of arrays, with the samples first. Defaults to None.
        loss: For a name that needs a loss: a Keras loss or its name. Defaults to None: the loss
            that the model was compiled with.

    Returns:
        A `ChannelImportance`.

    Raises:
        TypeError: If `importance` is neither a name nor a function.
        ValueError: If no importance of this name is registered, if it needs data and there are
            none, or if there are data or a loss that it does not need.
    """
    if not isinstance(importance, str):
        if not callable(importance):
            raise TypeError(
                "`importance` must be a name, such as 'l2_norm', or a function from "
                f"tfcompress.importance, such as taylor(x, y). Received: {importance!r}"
            )
        if data is not None or loss is not None:
            raise ValueError(
                "`data` and `loss` go with the name of an importance. A function has them "
                f"already. Received: importance={importance!r}"
            )
        return check_function("importance", importance, "model", "groups")
    if loss is not None:
        check_loss("loss", loss)
    function, needs = IMPORTANCES.get(importance), IMPORTANCES.needs(importance)
    if (needs == "weights") != (data is None):
        others = ", ".join(IMPORTANCES.names("data", "loss"))
        raise ValueError(
            f"The importance {importance!r} needs "
            + ("no data" if needs == "weights" else "data, such as data=(x, y)")
            + f". These need data: {others}."
        )
    if loss is not None and needs != "loss":
        raise ValueError(
            f"The importance {importance!r} needs no loss. Received: loss={loss!r}. These need a "
            f"loss: {', '.join(IMPORTANCES.names('loss'))}."
        )
    if isinstance(data, tuple) and len(data) != 2:
        raise ValueError(
            "`data` as a tuple must be (x, y), inputs and targets. Several inputs are a list. "
            f"Received: a tuple of {len(data)}"
        )
    x, y = data if isinstance(data, tuple) else (data, None)
    arguments = {"weights": (), "data": (x,), "loss": (x, y, loss)}[needs]
    made: ChannelImportance = function(*arguments) if arguments else function
    return made
