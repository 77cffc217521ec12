"""Callbacks that freeze ranges or batch normalization from a time of training on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from tfcompress.edge.arguments import check_integer
from tfcompress.model.fit_callback import inner_optimizer
from tfcompress.model.layers import all_layers, trained

from .fake_quant import fake_quants
from .wrapper import QuantizeWrapper

__all__ = ["FreezeBatchNorm", "FreezeRanges"]


class _FreezeAt(keras.callbacks.Callback):  # type: ignore[misc]
    """Freezes something once, at an epoch or a step of the optimizer."""

    def __init__(self, epoch: int | None = None, step: int | None = None) -> None:
        super().__init__()
        for name, value in (("epoch", epoch), ("step", step)):
            if value is not None:
                check_integer(name, value, 0)
        if (epoch is None) == (step is None):
            raise ValueError(
                f"Give one of `epoch` and `step`. Received: epoch={epoch}, step={step}"
            )
        self.epoch = epoch
        self.step = step
        self._done = False

    def _freeze(self, frozen: bool) -> bool:
        """Freeze or thaw, and return whether anything changed."""
        raise NotImplementedError

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Thaw what an earlier `fit` froze, until its time comes again."""
        self._done = False
        if not any(True for _ in fake_quants(trained(self.model))):
            raise ValueError(
                f"{type(self).__name__} is for models from quantize_aware; {self.model.name!r} has "
                "no ranges."
            )
        if self._freeze(False):
            self.model.make_train_function(force=True)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Freeze from this epoch on."""
        if self.epoch is not None and epoch >= self.epoch:
            self._once()
        self._at_step()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Freeze from this step on."""
        self._at_step()

    def _at_step(self) -> None:
        if self.step is None or self._done:
            return
        if int(self.model.optimizer.iterations.numpy()) >= self.step:
            self._once()

    def _once(self) -> None:
        if not self._done and self._freeze(True):
            # The step that was traced before has the old state in it.
            self.model.make_train_function(force=True)
        self._done = True


class FreezeRanges(_FreezeAt):
    """Stop the ranges of activations from moving, from an epoch or a step on.

    Weights then settle on ranges that stay; Jacob et al. freeze them for the last part of training.
    Learned ranges stay too: the optimizer no longer moves them.

    >>> FreezeRanges(epoch=2).epoch
    2

    Args:
        epoch: Epoch from whose beginning on the ranges stay, counted from 0. Defaults to None.
        step: Number of steps of the optimizer from which on the ranges stay. It is checked before
            each batch, or before each `steps_per_execution` batches. Defaults to None.

    Raises:
        ValueError: If not exactly one of both is given; or, in `fit`, a range is not known yet, or
            ranges are learned and the optimizer has `use_ema=True`.

    Reference:
        Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 3.1
    """

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Refuse an optimizer that cannot leave learned ranges alone; thaw what was frozen."""
        learned = [f.name for f in fake_quants(trained(self.model)) if f.observer.trainable]
        if learned and getattr(inner_optimizer(self.model), "use_ema", False):
            raise ValueError(
                "FreezeRanges cannot freeze learned ranges while the optimizer averages all "
                f"variables that it trains: {', '.join(learned)}. Compile with an optimizer that "
                "has use_ema=False, or make the model with "
                'QuantizationScheme(ranges="moving_average").'
            )
        super().on_train_begin(logs)

    def _freeze(self, frozen: bool) -> bool:
        unknown = [f.name for f in fake_quants(trained(self.model)) if not float(f.seen.numpy())]
        if frozen and unknown:
            raise ValueError(
                f"FreezeRanges cannot freeze ranges that are not known yet: {', '.join(unknown)}. "
                "Call tfcompress.calibrate(model, samples) before, or freeze them later."
            )
        return _set(fake_quants(trained(self.model)), "frozen", frozen)


class FreezeBatchNorm(_FreezeAt):
    """Normalize by the moving statistics in training too, from an epoch or a step on.

    The file does so too, and weights can adapt to it. Gamma and beta go on training.

    >>> FreezeBatchNorm(step=1000).step
    1000

    Args:
        epoch: Epoch from whose beginning on the statistics stay, counted from 0. Defaults to None.
        step: Number of steps of the optimizer from which on the statistics stay. It is checked
            before each batch, or before each `steps_per_execution` batches. Defaults to None.

    Raises:
        ValueError: If not exactly one of both is given.

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
