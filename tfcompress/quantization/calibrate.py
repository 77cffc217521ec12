"""`calibrate`: set the ranges of a quantization-aware model from samples."""

from __future__ import annotations

import math
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import Progress

from tfcompress.edge.arguments import check_batch_size, check_integer
from tfcompress.model.checks import check_built
from tfcompress.model.layers import all_layers
from tfcompress.model.samples import load_samples
from tfcompress.model.signature import signature

from .fake_quant import FakeQuant, fake_quants

__all__ = ["calibrate"]


def calibrate(
    model: keras.Model, data: Any, batch_size: int = 32, max_samples: int = 500
) -> keras.Model:
    """Set the ranges of activations to the values that samples reach.

    Training then begins from there, not from the ranges of its first batch, and a model that is not
    trained any further can be exported. The range of a tensor is its true lowest and highest value,
    unless the scheme names an observer of your own, which then decides. Meanwhile activations are
    not rounded, kernels are.

    >>> import numpy as np
    >>> from tfcompress.quantization.quantize import quantize_aware
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    >>> qat = calibrate(quantize_aware(model), np.eye(4, dtype="float32"))
    >>> low, high = next(fake_quants(qat)).range()
    >>> round(low, 2), round(high, 2)
    (0.0, 1.0)

    Args:
        model: A model from `quantize_aware`. Its ranges are set in place.
        data: Samples: an array, a dict of arrays by input name, a generator or `tf.data.Dataset` of
            either, with or without targets, or the path of an .npz file.
        batch_size: Samples at a time, if the model does not say. Defaults to 32.
        max_samples: Number of samples that are used at most. Defaults to 500.

    Returns:
        The model that was given.

    Raises:
        TypeError: If it is not a Keras model, or an argument has another wrong type.
        ValueError: If a number is below 1, the model does not come from `quantize_aware`, or there
            are no samples, or they have a wrong shape or hold NaN, or a tensor becomes infinite or
            NaN. The ranges stay as they were.

    Warns:
        UserWarning: If batch normalization has no statistics yet.
    """
    batch_size = check_batch_size(batch_size)
    max_samples = check_integer("max_samples", max_samples, 1)
    layers = _fake_quants(model)
    call = signature(model, batch_size)
    samples = load_samples(data, call.inputs, max_samples=max_samples)
    count = len(next(iter(samples.values())))
    size = call.inputs[0].shape[0] or batch_size

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def observe(batch: dict[str, Any]) -> None:
        call.call(batch)

    # Progress is for a terminal, not for a log or a notebook.
    console = Console(stderr=True)
    variables = [variable for layer in layers for variable in layer.variables]
    before = [variable.numpy() for variable in variables]
    for layer in layers:
        layer.forget()
        layer.observing = True
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            for start in progress.track(range(0, count, size), description="calibrating"):
                # The last batch is filled up from before it, where the model wants full ones.
                rows = slice(max(0, min(start, count - size)), start + size)
                observe({name: tf.constant(array[rows]) for name, array in samples.items()})
    finally:
        for layer in layers:
            layer.observing = False
            layer.begin()
    bounds = {layer.name: (float(layer.low.numpy()), float(layer.high.numpy())) for layer in layers}
    bad = next((name for name, pair in bounds.items() if not all(map(math.isfinite, pair))), None)
    if bad is not None:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        raise ValueError(
            f"The tensor of '{bad}' in model {model.name!r} is not finite on these samples: its "
            f"values are from {bounds[bad][0]} to {bounds[bad][1]}. The weights have diverged or "
            "the samples are not what the model expects. The ranges stay as they were."
        )
    _warn_of_fresh_statistics(model)
    return model


def _warn_of_fresh_statistics(model: keras.Model) -> None:
    """Warn if ranges were set with batch normalization that has its initial statistics."""
    fresh = [
        layer.name
        for layer in all_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.trainable
        and not np.any(keras.ops.convert_to_numpy(layer.moving_mean))
        and np.all(keras.ops.convert_to_numpy(layer.moving_variance) == 1.0)
    ]
    if fresh:
        warnings.warn(
            f"{len(fresh)} BatchNormalization layers, the first of them '{fresh[0]}', have their "
            "initial statistics, mean 0 and variance 1. The ranges are right for those only, and "
            "the first batches of training will set them anew where they are off by far. Calibrate "
            "a trained model, or leave the ranges to training.",
            stacklevel=3,
        )


def _fake_quants(model: keras.Model) -> list[FakeQuant]:
    check_built(model)
    found = list(fake_quants(model))
    if not found:
        raise ValueError(
            f"The model {model.name!r} has no ranges to set. Make it with quantize_aware first."
        )
    return found
