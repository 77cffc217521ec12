"""Recurrent layers without a loop, while a model is traced."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from tfcompress.converters.errors import ConversionError
from tfcompress.model.layers import all_layers

STEPS = 64
"""Steps up to which a loop is unrolled unasked: the file holds the ops of each."""


def loops(model: keras.Model) -> dict[str, int | None]:
    """Return the recurrent layers that run a loop, each with its number of steps.

    >>> model = keras.Sequential([keras.Input((12, 3)), keras.layers.GRU(4, name="gru")])
    >>> loops(model)
    {'gru': 12}

    Args:
        model: A built model.

    Returns:
        Name of the layer -> steps; None if the length of its sequences is free.
    """
    return {layer.name: _steps(layer) for layer in looping(model)}


def check_unrollable(model: keras.Model, precision: str) -> tuple[str, ...]:
    """Check that the loops of a model are short enough to be unrolled.

    Args:
        model: A built model.
        precision: Name of the precision, for the error.

    Returns:
        The layers with loops.

    Raises:
        ConversionError: A loop has more than `STEPS` steps, or as many as its input has.
    """
    found = loops(model)
    free = [repr(name) for name, steps in found.items() if steps is None]
    long = {repr(name): steps for name, steps in found.items() if steps and steps > STEPS}
    start = f"Model '{model.name}' cannot be converted to {precision} as it is: TFLite has no int8 "
    start += "form of a loop, and "
    other = "Or choose a precision that keeps the loop, such as DynamicInt8() or Float16()."
    if free:
        raise ConversionError(
            f"{start}layer {', '.join(free)} takes sequences of any length, so that its steps "
            f"cannot be written out one by one. Give its keras.Input a fixed length. {other}"
        )
    if long:
        steps = ", ".join(f"{name} ({count} steps)" for name, count in long.items())
        raise ConversionError(
            f"{start}only loops of up to {STEPS} steps are unrolled unasked, because the file then "
            f"holds the ops of each step: over 100 steps, 24 times the bytes. Too long: {steps}. "
            f"If that is fine, set `layer.unroll = True` and convert again. {other}"
        )
    return tuple(found)


def unrolled_note(model: keras.Model, label: str) -> str:
    """Say which loops of a model a file holds step by step.

    Args:
        model: The model, with its loops.
        label: Name of the file.
    """
    found = ", ".join(f"'{name}' ({steps} steps)" for name, steps in loops(model).items())
    return (
        f"{label}: TFLite has no int8 form of a loop, so that {found} is unrolled: the file holds "
        "the ops of each step. DynamicInt8() and Float16() keep the loop, in fewer bytes."
    )


@contextlib.contextmanager
def unrolled(model: keras.Model) -> Iterator[None]:
    """Trace the loops of a model step by step in the `with` block; the model is as before after it.

    Args:
        model: A built model, whose loops have a known number of steps.
    """
    changed = list(looping(model))
    for layer in changed:
        layer.unroll = True
    try:
        yield
    finally:
        for layer in changed:
            layer.unroll = False


def looping(model: keras.Model) -> Iterator[keras.layers.RNN]:
    """Yield the recurrent layers that run a loop."""
    for layer in all_layers(model):
        if isinstance(layer, keras.layers.RNN) and not layer.unroll:
            yield layer


def _steps(layer: keras.layers.RNN) -> int | None:
    """Return the length of the sequences that a layer was built for."""
    built = layer.get_build_config() or {}
    shape = built.get("input_shape") or next(iter(built.get("shapes_dict", {}).values()), None)
    return None if shape is None or len(shape) < 2 else shape[1]
