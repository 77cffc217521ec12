"""What an observer is, and the registry that names are looked up in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import tensorflow as tf

from tfcompress.edge.arguments import check_number, check_text

__all__ = [
    "Observer",
    "check_observer",
    "extremes",
    "observer",
    "observers",
    "off_by_far",
    "register_observer",
]


@dataclass(frozen=True)
class Observer:
    """Decide from the values of a tensor in which range it is quantized.

    An observer is a function of tensors with its options: the state goes in, the new state comes
    out, and `FakeQuant` keeps it in variables. So it works inside a `tf.function`, compiled or not,
    and on the replicas of a strategy. Where several tensors share a range, `FakeQuant` lets it grow
    only. Quantization adds zero to the range, if it is not in it.

    >>> @register_observer("largest_first_value")
    ... class LargestFirstValue(Observer):
    ...     def update(self, low, high, values, first):
    ...         value = tf.cast(tf.reshape(values, [-1])[0], tf.float32)
    ...         return tf.minimum(low, value), tf.maximum(high, value)
    >>> low, high = observer("largest_first_value").update(0.0, 1.0, tf.constant([3.0, 5.0]), False)
    >>> float(low), float(high)
    (0.0, 3.0)

    Args:
        momentum: Share of the old range that an update keeps, for observers that average. Defaults
            to 0.99.

    Attributes:
        trainable: Whether the optimizer moves the range after its first value. A largest weight per
            channel is then trained with it.
        calibration: Name of the observer that `calibrate` uses instead, or None for this one.
    """

    momentum: float = 0.99

    trainable: ClassVar[bool] = False
    calibration: ClassVar[str | None] = None

    def update(self, low: Any, high: Any, values: Any, first: Any) -> tuple[Any, Any]:
        """Return the range after a batch.

        Args:
            low: Lower bound so far, a float32 scalar; 0 for the first batch.
            high: Upper bound so far, a float32 scalar; 0 for the first batch.
            values: Values of the tensor in this batch, a float tensor of any shape, perhaps in half
                precision.
            first: Whether this is the first batch, a boolean scalar. A batch of early training
                whose values are of another order than the range counts as the first again.

        Returns:
            The lower and the upper bound, float32 scalars.
        """
        raise NotImplementedError


_OBSERVERS: dict[str, type[Observer]] = {}
_Class = TypeVar("_Class", bound=type[Observer])


def register_observer(name: str) -> Callable[[_Class], _Class]:
    """Register an observer under a name, as a decorator of its class.

    The name is then valid as `ranges` of `QuantizationScheme` and `FakeQuant`, and in the command
    line.

    Args:
        name: The name. Models are saved with it.

    Returns:
        A decorator that returns the class itself.

    Raises:
        TypeError: If the class is not an `Observer`.
        ValueError: If another class has the name.
    """
    check_text("name", name)

    def register(cls: _Class) -> _Class:
        if not (isinstance(cls, type) and issubclass(cls, Observer)):
            raise TypeError(f"An observer is a subclass of Observer. Received: {cls!r}")
        known = _OBSERVERS.get(name)
        # A module that is imported again defines its class again.
        if known is not None and _place(known) != _place(cls):
            raise ValueError(f"There is an observer {name!r} already: {known!r}. Received: {cls!r}")
        _OBSERVERS[name] = cls
        return cls

    return register


def _place(cls: type[Observer]) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def observers() -> tuple[str, ...]:
    """Return the names of all observers, in the order in which they were registered."""
    return tuple(_OBSERVERS)


def observer(name: str, momentum: float = 0.99) -> Observer:
    """Return the observer of a name.

    Args:
        name: One of `observers()`.
        momentum: Share of the old range that an update keeps. Defaults to 0.99.

    Raises:
        ValueError: If there is no such observer, or the momentum is out of bounds.
    """
    check_observer(name, momentum)
    return _OBSERVERS[name](momentum)


def check_observer(name: str, momentum: float = 0.99) -> None:
    """Raise if there is no observer of this name, or the momentum is not from 0 to below 1."""
    check_text("ranges", name)
    if name not in _OBSERVERS:
        raise ValueError(
            f"`ranges` must be one of {observers()}, or an observer that a module which was "
            f"imported before has registered. Received: ranges={name!r}"
        )
    check_number("momentum", momentum, 0, below=1)


def extremes(values: Any) -> tuple[Any, Any]:
    """Return the lowest and the highest value, zero among them, as float32 scalars."""
    low = tf.minimum(tf.cast(tf.reduce_min(values), tf.float32), 0.0)
    high = tf.maximum(tf.cast(tf.reduce_max(values), tf.float32), 0.0)
    return tf.stop_gradient(low), tf.stop_gradient(high)


def off_by_far(low: Any, high: Any, values: Any) -> Any:
    """Return whether a range is of another order than a batch, a boolean scalar.

    It is if it is more than ten times too narrow, so that most of a batch is clipped and passes no
    gradient, or more than a hundred times too wide, so that two or three steps are left. Ranges of
    `calibrate` are, where batch normalization had no statistics yet: training normalizes by the
    batch. A batch of zeros says nothing.

    >>> bool(off_by_far(-0.001, 0.002, tf.constant([-1.0, 3.0])))
    True
    >>> bool(off_by_far(-2.0, 9.0, tf.constant([-1.0, 3.0])))
    False

    Args:
        low: Lower bound of the range, a float32 scalar.
        high: Upper bound of the range, a float32 scalar.
        values: Values of the tensor in this batch, a float tensor of any shape.
    """
    lowest, highest = extremes(values)
    width, now = high - low, highest - lowest
    return (now > 10.0 * width) | ((now > 0.0) & (100.0 * now < width))
