"""Recordings at two batch sizes -> one for any."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np

from .calls import Call, NotOpened, Recording, same, same_operation

__all__ = ["ForEachSample", "of_any_batch"]


@keras.saving.register_keras_serializable("tfcompress")
class ForEachSample(keras.layers.Layer):  # type: ignore[misc]
    """Repeats a tensor for each sample of a batch.

    >>> repeat = ForEachSample((4, 2))
    >>> tuple(repeat(keras.ops.zeros((1, 4, 2)), keras.ops.zeros((3, 5))).shape)
    (3, 4, 2)

    Args:
        shape: Shape of a sample of the result, a tuple of ints.
        **options: Other arguments of a Keras layer.
    """

    def __init__(self, shape: tuple[int, ...], **options: Any) -> None:
        super().__init__(**options)
        self.shape = tuple(shape)
        self.supports_masking = True
        self.built = True

    def call(self, x: Any, samples: Any) -> Any:
        """Return `x`, broadcast to a row for each row of `samples`."""
        return keras.ops.broadcast_to(x, (keras.ops.shape(samples)[0], *self.shape))

    def compute_mask(self, x: Any, mask: Any = None) -> None:
        """Return None: what is repeated has no mask."""

    def compute_output_spec(self, x: Any, samples: Any) -> keras.KerasTensor:
        """Return shape and dtype of the repeated tensor."""
        return keras.KerasTensor((samples.shape[0], *self.shape), x.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "shape": list(self.shape)}


def of_any_batch(two: Recording, three: Recording) -> Recording:
    """Return what two recordings of one layer, at different batch sizes, say of any batch.

    Whatever number differs between them is the size of the batch: a place in the shape of a
    reshape, or the first axis of a constant with equal rows.

    Args:
        two: The recording at one batch size.
        three: The recording at another.

    Returns:
        The first, with all that depends on its batch size replaced.

    Raises:
        NotOpened: Something depends on the batch size in another way.
    """
    ends = [
        [x for x in keras.tree.flatten(found.outputs) if not isinstance(x, keras.KerasTensor)]
        for found in (two, three)
    ]
    alike = len(ends[0]) == len(ends[1]) and all(same(a, b, {}) for a, b in zip(*ends, strict=True))
    if len(two.calls) != len(three.calls) or not alike:
        raise NotOpened(_DEPENDS)
    anchor = next(x for x, y in zip(two.inputs, three.inputs, strict=True) if x.shape != y.shape)
    calls = [_merged(a, b, anchor) for a, b in zip(two.calls, three.calls, strict=True)]
    return replace(two, calls=calls)


_DEPENDS = "its `call` does something else for another batch size"


def _merged(one: Call, other: Call, anchor: Any) -> Call:
    args, kwargs = keras.tree.map_structure(
        _any_rows, (one.args, one.kwargs), (other.args, other.kwargs)
    )
    operation, name = one.operation, type(one.operation).__name__
    if same_operation(operation, other.operation):
        return replace(one, args=args, kwargs=kwargs)
    shapes = [tuple(call.outputs[0].shape) for call in (one, other)]
    if name == type(other.operation).__name__ and shapes[0][1:] == shapes[1][1:]:
        rows, x = shapes[0][1:], args[0]
        if name == "Reshape":
            operation = type(operation)((-1, *rows))
            return replace(one, operation=operation, args=args, kwargs=kwargs)
        copies = name in ("Repeat", "Tile") and tuple(x.shape) == (1, *rows)
        if name == "BroadcastTo" or copies:
            return replace(one, operation=ForEachSample(rows), args=(x, anchor), kwargs={})
    raise NotOpened(_DEPENDS)


def _any_rows(one: Any, other: Any) -> Any:
    """Return an argument that stands for both."""
    if isinstance(one, keras.KerasTensor) or same(one, other, {}):
        return one
    if not (np.ndim(one) and np.ndim(one) == np.ndim(other)):
        raise NotOpened(_DEPENDS)
    row = keras.ops.convert_to_tensor(one)[:1]
    for array in (one, other):
        if not bool(keras.ops.all(keras.ops.equal(array, row))):
            raise NotOpened(_DEPENDS)
    return row
