"""Checks of the arguments of quantization-aware layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tfcompress.edge.arguments import (
    check_bool,
    check_each,
    check_function,
    check_integer,
    check_number,
    refuse,
)

__all__ = ["check_activation", "check_bits", "check_bools", "check_range", "check_wrapped"]


def check_bits(name: str, bits: object) -> int:
    """Return a width of integers in bits, or raise if it is not from 2 to 16.

    >>> check_bits("bits", 4)
    4

    Args:
        name: Name of the argument.
        bits: What was given.

    Returns:
        The value as an int.

    Raises:
        TypeError: It is no integer.
        ValueError: It is out of range.
    """
    return check_integer(name, bits, 2, 16)


def check_bools(**values: object) -> None:
    """Raise a TypeError if one of several arguments, by name, is no bool."""
    for name, value in values.items():
        check_bool(name, value)


def check_range(name: str, bounds: object) -> tuple[float, float]:
    """Return the lowest and the highest value of a range, or raise if it is none.

    >>> check_range("fixed", (0, 1))
    (0.0, 1.0)

    Args:
        name: Name of the argument.
        bounds: What was given: a pair of numbers.

    Returns:
        The two as floats.

    Raises:
        TypeError: It is no pair of numbers.
        ValueError: A number is not finite, or the second is not above the first.
    """
    wanted = "a pair of finite numbers, the lowest value and a higher one"
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        refuse(name, wanted, bounds, TypeError)
    low, high = (check_number(name, bound) for bound in bounds)
    if not low < high:
        refuse(name, wanted, bounds)
    return low, high


def check_wrapped(
    layer: object, then: object, weight_bits: object, activation_bits: object
) -> None:
    """Raise if a `QuantizeWrapper` cannot wrap a layer, followed by others, with these widths.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A width is out of range.
    """
    check_bits("weight_bits", weight_bits)
    check_bits("activation_bits", activation_bits)
    if not isinstance(layer, keras.layers.Layer):
        refuse("layer", "a keras.layers.Layer", layer, TypeError)
    check_each("then", then, keras.layers.Layer, "a keras.layers.Layer")


def check_activation(name: str, given: object) -> Callable[..., Any] | None:
    """Return an activation function of Keras, or None for none.

    >>> check_activation("activation", "relu") is keras.activations.relu
    True

    Args:
        name: Name of the argument.
        given: What was given: a function, its name, its config or None.

    Returns:
        The function, or None.

    Raises:
        TypeError: It is nothing of that.
        ValueError: Keras has no activation of this name.
    """
    if given is None:
        return None
    wanted = 'an activation of Keras, its name such as "relu", or None'
    if not isinstance(given, str | dict):
        return check_function(name, given, "x")
    try:
        found: Callable[..., Any] = keras.activations.get(given)
    except (KeyError, TypeError, ValueError):
        refuse(name, wanted, given)
    return found
