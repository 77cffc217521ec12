"""`FakeQuant`: the layer that rounds an activation to int8, and tracks or learns its range."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from tfcompress.converters.errors import ConversionError
from tfcompress.converters.export.scope import is_exporting
from tfcompress.model.layers import all_layers
from tfcompress.model.quantized import TensorQuantizer

from . import numerics as quantizers
from .scheme import MOVING_AVERAGE, RANGES

__all__ = ["FakeQuant", "fake_quants"]


@keras.saving.register_keras_serializable("tfcompress")
class FakeQuant(TensorQuantizer, keras.layers.Layer):  # type: ignore[misc]
    """Round activations to the 256 values that an int8 tensor of their range can hold.

    The range is a moving average of the batches' lowest and highest values, or learned, or fixed.
    Until it is known, from the first training batch or `calibrate`, the layer passes everything on
    unchanged. `quantize_aware` places these layers; by hand they are needed for odd cases only.

    >>> import numpy as np
    >>> layer = FakeQuant(fixed=(0.0, 2.55))
    >>> layer(np.float32([0.004, 0.006, 9.0])).numpy().astype(float).round(3).tolist()
    [0.0, 0.01, 2.55]

    Args:
        ranges: "moving_average" or "learned" (LSQ). Defaults to "moving_average".
        momentum: Share of the old range that a training step keeps. Defaults to 0.99.
        symmetric: Whether int8's 0 stands for 0.0, so that the zero point costs nothing. Defaults
            to False.
        fixed: (low, high), if the range is known: TFLite's softmax goes from 0 to 255/256.
        calls: How often the layer is called in its model. With more than one, the range must cover
            all of them, so that it grows only.
        frozen: Whether the range stays as it is. Defaults to False.
        **kwargs: As for any layer.

    Reference:
        Jacob et al. 2018, https://arxiv.org/abs/1712.05877
    """

    def __init__(
        self,
        ranges: str = MOVING_AVERAGE,
        momentum: float = 0.99,
        symmetric: bool = False,
        fixed: tuple[float, float] | None = None,
        calls: int = 1,
        frozen: bool = False,
        **kwargs: Any,
    ) -> None:
        if ranges not in RANGES:
            raise ValueError(f"ranges must be one of {RANGES}. Received: ranges={ranges!r}")
        super().__init__(**kwargs)
        self.ranges = ranges
        self.momentum = momentum
        self.symmetric = symmetric
        self.fixed = None if fixed is None else (float(fixed[0]), float(fixed[1]))
        self.calls = calls
        self.frozen = frozen
        self.observing = False
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Create the range; its shape does not depend on the input's."""
        if self.fixed is None:
            learned = self.ranges != MOVING_AVERAGE
            self.low = self._scalar("low", learned)
            self.high = self._scalar("high", learned)
            self.seen = self._scalar("seen", False)
        self.built = True

    def _scalar(self, name: str, trainable: bool) -> keras.Variable:
        # The range must not be rounded to half precision, and replicas agree on its mean.
        return self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="float32",
            trainable=trainable,
            autocast=False,
            aggregation="mean",
            name=name,
        )

    def call(self, inputs: Any, training: bool | None = None, observe: bool = True) -> Any:
        """Quantize.

        Args:
            inputs: Float tensor.
            training: Whether the range follows the batch.
            observe: False for a tensor that merely shares another one's range.

        Returns:
            Tensor like `inputs`.
        """
        if is_exporting():
            low, high = quantizers.nudged(*self.range())
            return tf.quantization.fake_quant_with_min_max_args(inputs, low, high)
        if self.fixed is not None:
            return with_step(quantizers.fake_quant(inputs, *self.fixed), *self.fixed)
        if self.observing:
            if observe:
                self._grow(inputs)
            return inputs
        following = training and observe and not self.frozen
        if following:
            self._follow(inputs)
        low, high = self._bounds()
        learning = training and self.ranges != MOVING_AVERAGE
        quantize = quantizers.fake_quant_learned if learning else quantizers.fake_quant
        quantized = quantize(inputs, low, high)
        if following:
            return quantized  # Something was seen by now.
        known = tf.convert_to_tensor(self.seen) > 0.0
        return with_step(tf.where(known, quantized, inputs), low, high)

    def _bounds(self) -> tuple[Any, Any]:
        low, high = self._read()
        return quantizers.symmetric_range(low, high) if self.symmetric else (low, high)

    def _follow(self, inputs: Any) -> None:
        """Move the range toward the batch's; the first batch sets it."""
        seen = tf.convert_to_tensor(self.seen)
        if self.ranges != MOVING_AVERAGE:
            # From here on the optimizer moves it.
            fresh = seen < float(self.calls)
            step = tf.cast(fresh, tf.float32)
            low, high = tf.cond(fresh, lambda: _extremes(inputs), lambda: self._read())
        else:
            low, high = _extremes(inputs)
            step = tf.where(seen < float(self.calls), 1.0, 1.0 - self.momentum)
        old_low, old_high = self._read()
        down, up = low - old_low, high - old_high
        if self.calls > 1:
            down, up = tf.minimum(down, 0.0), tf.maximum(up, 0.0)
        self.low.assign(old_low + step * down)
        self.high.assign(old_high + step * up)
        self.seen.assign(tf.minimum(seen + 1.0, _MANY))

    def _grow(self, inputs: Any) -> None:
        """Widen the range to hold the batch."""
        low, high = _extremes(inputs)
        self.low.assign(tf.minimum(self.low, low))
        self.high.assign(tf.maximum(self.high, high))
        self.seen.assign(float(self.calls))

    def _read(self) -> tuple[Any, Any]:
        return tf.convert_to_tensor(self.low), tf.convert_to_tensor(self.high)

    def forget(self) -> None:
        """Make the range unknown again."""
        for variable in (self.low, self.high, self.seen):
            variable.assign(0.0)

    def range(self) -> tuple[float, float]:
        """The lowest and the highest value, as they are now.

        Raises:
            ConversionError: None is known yet, or it is NaN or infinite.
        """
        if self.fixed is not None:
            return self.fixed
        with tf.init_scope():
            low, high = (float(bound) for bound in self._bounds())
            seen = float(self.seen.numpy())
        if not seen:
            raise ConversionError(
                f"The range of '{self.name}' is not known: the quantization-aware model has "
                "neither been trained nor calibrated. Call model.fit(...), or "
                "tfcompress.calibrate(model, samples) with some 100 training samples."
            )
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ConversionError(
                f"The range of '{self.name}' is {low} to {high}. Training has diverged, or samples "
                "hold NaN: go back to an earlier checkpoint, and calibrate again."
            )
        return low, high

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Like the input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """All arguments."""
        return {
            **super().get_config(),
            "ranges": self.ranges,
            "momentum": self.momentum,
            "symmetric": self.symmetric,
            "fixed": self.fixed,
            "calls": self.calls,
            "frozen": self.frozen,
        }


def with_step(x: Any, low: Any, high: Any) -> Any:
    """`x`, remembering the step between its values: the grid of biases follows from it."""
    x._int8_step = quantizers.step_size(low, high)
    return x


def step_of(x: Any) -> Any:
    """The step between the values of a tensor that a `FakeQuant` gave out, or None."""
    return getattr(x, "_int8_step", None)


def keep_step(x: Any, source: Any) -> Any:
    """`x`, whose values are those of `source` in other places."""
    x._int8_step = step_of(source)
    return x


_MANY = 1e6  # Counted no further, far from where float32 stops counting.


def _extremes(inputs: Any) -> tuple[Any, Any]:
    """Lowest and highest value, zero among them."""
    low = tf.minimum(tf.cast(tf.reduce_min(inputs), tf.float32), 0.0)
    high = tf.maximum(tf.cast(tf.reduce_max(inputs), tf.float32), 0.0)
    return tf.stop_gradient(low), tf.stop_gradient(high)


def fake_quants(model: keras.Model) -> Iterator[FakeQuant]:
    """All of a model that track or learn a range, each once."""
    for layer in all_layers(model):
        if isinstance(layer, FakeQuant) and layer.fixed is None:
            yield layer
