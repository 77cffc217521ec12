"""Positions that count in a distillation loss: those of padding teach nothing."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfcompress.edge.arguments import check_text
from tfcompress.model.graph import functional
from tfcompress.model.keras_private import producer

__all__ = ["check_mask", "check_positions", "given_mask", "mean_where"]


def check_mask(mask: str | None) -> str | None:
    """Return the name of an input, or None, after a check of its type."""
    return None if mask is None else check_text("mask", mask)


def check_positions(loss: Any, model: keras.Model, positions: tuple[int | None, ...]) -> None:
    """Raise if a model has no such input as a loss names, or if that has other positions.

    Args:
        loss: A loss with `mask`, the name of an input or None.
        model: The student.
        positions: Sizes of the positions for which the loss has a value each.

    Raises:
        ValueError: It does not fit.
    """
    if loss.mask is None:
        return
    shapes = {producer(tensor).name: tensor.shape for tensor in functional(model).inputs}
    if loss.mask not in shapes:
        raise ValueError(
            f"{type(loss).__name__}(mask={loss.mask!r}) needs an input of that name, which is 1 "
            f"where a position counts. The student {model.name!r} has: {', '.join(shapes)}."
        )
    found = tuple(shapes[loss.mask][1:])
    if len(positions) != 1 or len(found) != 1 or not _alike(found[0], positions[0]):
        raise ValueError(
            f"{type(loss).__name__}(mask={loss.mask!r}) needs a value for each position of that "
            f"input, {found}. What it compares has positions {positions}."
        )


def _alike(a: int | None, b: int | None) -> bool:
    return a is None or b is None or a == b


def given_mask(loss: Any, model: keras.Model, x: Any) -> Any:
    """Return the values of the input that a loss names, or None if it names none.

    Args:
        loss: Any distillation loss.
        model: The student.
        x: What the student is called with: a dictionary by input name, or tensors in the order of
            its inputs.

    Returns:
        Tensor (samples, positions).
    """
    name = getattr(loss, "mask", None)
    if name is None or isinstance(x, dict):
        return None if name is None else x[name]
    names = [producer(tensor).name for tensor in functional(model).inputs]
    return keras.tree.flatten(x)[names.index(name)]


def mean_where(values: Any, mask: Any) -> Any:
    """Return the mean over the positions that count.

    >>> float(mean_where(ops.array([[1.0, 3.0, 50.0]]), ops.array([[1, 1, 0]])))
    2.0

    Args:
        values: Float tensor (samples, positions).
        mask: Tensor (samples, positions), not 0 where a position counts; None if all do.

    Returns:
        A scalar; 0 if no position counts.
    """
    if mask is None:
        return ops.mean(values)
    counts = ops.cast(ops.cast(mask, "bool"), values.dtype)
    return ops.sum(values * counts) / ops.maximum(ops.sum(counts), 1.0)
