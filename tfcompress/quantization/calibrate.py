"""The ranges of a quantization-aware model: set from samples, and frozen at a time of training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console
from rich.progress import Progress

from tfcompress.model.layers import all_layers, trained
from tfcompress.model.samples import load_samples
from tfcompress.model.signature import signature

from .fake_quant import FakeQuant, fake_quants
from .wrapper import QuantizeWrapper

__all__ = ["FreezeBatchNorm", "FreezeRanges", "calibrate"]


def calibrate(
    model: keras.Model, data: Any, batch_size: int = 32, max_samples: int = 500
) -> keras.Model:
    """Set the ranges of activations to what samples reach, as post-training quantization does.

    Training then begins from there, not from the ranges of its first batch, and a model that is not
    trained any further can be exported. Activations are not rounded meanwhile, kernels are.

    >>> import numpy as np
    >>> from tfcompress.quantization.quantize import quantize_aware
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    >>> qat = calibrate(quantize_aware(model), np.eye(4, dtype="float32"))
    >>> low, high = next(fake_quants(qat)).range()
    >>> round(low, 2), round(high, 2)
    (0.0, 1.0)

    Args:
        model: From `quantize_aware`. Its ranges are set in place.
        data: Samples as for `converters.Int8(calibration=...)`: an array, a dict of arrays by input
            name, a generator or `tf.data.Dataset` of either, with or without targets, or the path
            of an .npz file.
        batch_size: Samples at a time, if the model does not say. Defaults to 32.
        max_samples: At most this many samples are used. Defaults to 500.

    Returns:
        The same model.

    Raises:
        ValueError: The model is none from `quantize_aware`, or the samples are no good: none, of a
            wrong shape, NaN.
    """
    layers = _fake_quants(model)
    call = signature(model, batch_size)
    samples = load_samples(data, call.inputs, max_samples=max_samples)
    count = len(next(iter(samples.values())))
    size = call.inputs[0].shape[0] or batch_size

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def observe(batch: dict[str, Any]) -> None:
        call.call(batch)

    console = Console(stderr=True)  # of a log or a notebook, progress would only be litter
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
    return model


def _fake_quants(model: keras.Model) -> list[FakeQuant]:
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected a keras.Model. Received: {model!r}")
    found = list(fake_quants(model))
    if not found:
        raise ValueError(
            f"The model {model.name!r} has no ranges to set. Make it with quantize_aware first."
        )
    return found


class _At(keras.callbacks.Callback):  # type: ignore[misc]
    """Does something once, at an epoch or a step of the optimizer."""

    def __init__(self, epoch: int | None = None, step: int | None = None) -> None:
        super().__init__()
        for name, value in (("epoch", epoch), ("step", step)):
            if value is not None and (not isinstance(value, int) or value < 0):
                raise ValueError(f"{name} must be a whole number from 0. Received: {value!r}")
        if (epoch is None) == (step is None):
            raise ValueError(
                f"Give either an epoch or a step. Received: epoch={epoch}, step={step}"
            )
        self.epoch = epoch
        self.step = step
        self._done = False

    def _freeze(self, frozen: bool) -> bool:
        """Freeze or thaw; whether anything changed."""
        raise NotImplementedError

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin anew: what an earlier `fit` froze moves until its time comes again."""
        self._done = False
        if not any(True for _ in fake_quants(trained(self.model))):
            raise ValueError(
                f"{type(self).__name__} is for models from quantize_aware; {self.model.name!r} has "
                "no ranges."
            )
        if self._freeze(False):
            self.model.make_train_function(force=True)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Do it from this epoch on."""
        if self.epoch is not None and epoch >= self.epoch:
            self._once()
        self._at_step()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Do it from this step on."""
        self._at_step()

    def _at_step(self) -> None:
        if self.step is None or self._done:
            return
        if int(self.model.optimizer.iterations.numpy()) >= self.step:
            self._once()

    def _once(self) -> None:
        if not self._done and self._freeze(True):
            # The step that was traced before does not know.
            self.model.make_train_function(force=True)
        self._done = True


class FreezeRanges(_At):
    """Stop the ranges of activations from moving, from an epoch or a step on.

    Weights then settle on ranges that stay; Jacob et al. freeze them for the last part of training.

    >>> FreezeRanges(epoch=2).epoch
    2

    Args:
        epoch: From the beginning of this epoch on, counted from 0.
        step: From this many steps of the optimizer on; checked before each batch, or each
            `steps_per_execution` of them.

    Raises:
        ValueError: Neither is given, or both; or, in `fit`, no range is known yet.

    Reference:
        Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 3.1
    """

    def _freeze(self, frozen: bool) -> bool:
        unknown = [f.name for f in fake_quants(trained(self.model)) if not float(f.seen.numpy())]
        if frozen and unknown:
            raise ValueError(
                f"FreezeRanges is to freeze ranges that are not known yet: {', '.join(unknown)}. "
                "Call tfcompress.calibrate(model, samples) before, or freeze them later."
            )
        return _set(fake_quants(trained(self.model)), "frozen", frozen)


class FreezeBatchNorm(_At):
    """Normalize by the moving statistics in training too, from an epoch or a step on.

    That is what the file does, so that weights can adapt to it; gamma and beta go on training.

    >>> FreezeBatchNorm(step=1000).step
    1000

    Args:
        epoch: As for `FreezeRanges`.
        step: As for `FreezeRanges`.

    Raises:
        ValueError: Neither is given, or both.

    Reference:
        Krishnamoorthi 2018, https://arxiv.org/abs/1806.08342, section 3.2
    """

    def _freeze(self, frozen: bool) -> bool:
        return _set(
            (la for la in all_layers(trained(self.model)) if isinstance(la, QuantizeWrapper)),
            "frozen_statistics",
            frozen,
        )


def _set(layers: Iterable[Any], attribute: str, value: bool) -> bool:
    changing = [layer for layer in layers if getattr(layer, attribute) != value]
    for layer in changing:
        setattr(layer, attribute, value)
    return bool(changing)
