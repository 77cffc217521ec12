"""`FakeQuant`: the layer that rounds an activation to int8 and tracks or learns its range."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from tfcompress.converters.errors import ConversionError
from tfcompress.converters.export.scope import is_exporting
from tfcompress.edge.arguments import check_integer
from tfcompress.model.layers import all_layers
from tfcompress.model.quantized import TensorQuantizer

from . import numerics
from .checks import check_bits, check_bools, check_range
from .observers.base import Observer, observer, off_by_far

__all__ = ["FakeQuant", "fake_quants"]


@keras.saving.register_keras_serializable("tfcompress")
class FakeQuant(TensorQuantizer, keras.layers.Layer):  # type: ignore[misc]
    """Round activations to the 256 values that an int8 tensor of their range can hold.

    An observer moves the range in training, or the range is fixed. Until it is known, from the
    first training batch or `calibrate`, the layer passes values on unchanged. `quantize_aware`
    places these layers; by hand they are needed for odd cases only.

    >>> import numpy as np
    >>> layer = FakeQuant(fixed=(0.0, 2.55))
    >>> layer(np.float32([0.004, 0.006, 9.0])).numpy().astype(float).round(3).tolist()
    [0.0, 0.01, 2.55]

    Args:
        ranges: Name of the observer that moves the range: "moving_average", "learned", "minmax" or
            one of your own. Defaults to "moving_average".
        momentum: Share of the old range that a training step keeps. Defaults to 0.99.
        symmetric: Whether the zero point is 0. Defaults to False.
        fixed: Lowest and highest value, where the range is known beforehand: TFLite's softmax gives
            values from 0 to 255/256. Defaults to None.
        calls: How often the layer is called in its model. With more than one, the range must cover
            all calls, so that it grows only. Defaults to 1.
        frozen: Whether the range stays as it is in training. Defaults to False.
        bits: Width of the integers. A .tflite file can be made with 8 only. Defaults to 8.
        integers: Whether the inputs are integers, which become floats first. Integers that are not
            expected are passed on as they are. Defaults to False.
        detached: Whether the op that makes the inputs stays in float in the file, because the
            converter fails on an int8 form of it. Defaults to False.
        **kwargs: Options of `keras.layers.Layer`: name, dtype, trainable.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there is no such observer, a number is out of bounds, or `fixed` is no range.

    Reference:
        Jacob et al. 2018, https://arxiv.org/abs/1712.05877
    """

    def __init__(
        self,
        ranges: str = "moving_average",
        momentum: float = 0.99,
        symmetric: bool = False,
        fixed: tuple[float, float] | None = None,
        calls: int = 1,
        frozen: bool = False,
        bits: int = 8,
        integers: bool = False,
        detached: bool = False,
        **kwargs: Any,
    ) -> None:
        self.observer = observer(ranges, momentum)
        check_bools(symmetric=symmetric, frozen=frozen, integers=integers, detached=detached)
        check_integer("calls", calls, 1)
        check_bits("bits", bits)
        super().__init__(**kwargs)
        self.ranges = ranges
        self.momentum = momentum
        self.symmetric = symmetric
        self.fixed = None if fixed is None else check_range("fixed", fixed)
        self.calls = calls
        self.frozen = frozen
        self.bits = bits
        self.integers = integers
        self.detached = detached
        self.observing = False
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Create the variables of the range; their shape does not depend on the input's."""
        if self.fixed is None:
            self.low = self._scalar("low", self.observer.trainable)
            self.high = self._scalar("high", self.observer.trainable)
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

    def call(
        self,
        inputs: Any,
        training: bool | None = None,
        observe: bool = True,
        only_step: bool = False,
        joint: Any = None,
        only_range: bool = False,
        entering: bool = False,
    ) -> Any:
        """Round the inputs to the range, after the range has followed them.

        Args:
            inputs: Float tensor of any shape.
            training: Whether the range follows the inputs. Defaults to False.
            observe: Whether the inputs may move the range. False for a tensor that shares the range
                of another one. Defaults to True.
            only_step: Whether to return the distance between neighbouring values instead, which a
                layer that reads the rounded tensor needs to round its bias. Defaults to False.
            joint: Range (2,) of an operation that reads the tensor together with others and has one
                range for all. It is taken if it is at most twice as wide. Defaults to None.
            entering: Whether the inputs are rounded to another range already and enter an operation
                that has this one. The converter adds an op there by itself. Defaults to False.
            only_range: Whether to return the lowest and the highest value instead, for another
                layer's `joint`. Defaults to False.

        Returns:
            Tensor of the shape and dtype of `inputs`; with `only_step` a float32 scalar, with
            `only_range` two of them (2,).
        """
        if only_step:
            return self.step(None if is_exporting() else joint)
        if only_range:
            return tf.constant(self.range()) if is_exporting() else tf.stack(self._bounds())
        if self.integers:
            inputs = tf.cast(inputs, self.compute_dtype)
        elif not keras.backend.is_float_dtype(inputs.dtype):
            return inputs
        if is_exporting():
            self._check_bits()
            if entering:
                return inputs
            whole = None if joint is None else tuple(tf.get_static_value(joint).tolist())
            low, high = numerics.nudged(*self.range(whole))
            inputs = numerics.kept_float(inputs) if self.detached else inputs
            return tf.quantization.fake_quant_with_min_max_args(inputs, low, high)
        if self.fixed is not None:
            return numerics.fake_quant(inputs, *self.fixed, self.bits)
        if self.observing:
            if observe:
                self._follow(inputs, observer(self.observer.calibration or self.ranges))
            return inputs
        if training and self.observer.trainable:
            self._let_optimizer_move_range(not self.frozen)
        following = training and observe and not self.frozen
        if following:
            self._follow(inputs, self.observer)
        low, high = _joined(*self._bounds(), joint)
        learning = training and self.observer.trainable and not self.frozen
        quantize = numerics.fake_quant_learned if learning else numerics.fake_quant
        quantized = quantize(inputs, low, high, self.bits)
        if following:
            return quantized  # Something was seen by now.
        known = tf.convert_to_tensor(self.seen) > 0.0
        return tf.where(known, quantized, inputs)

    def _let_optimizer_move_range(self, moves: bool) -> None:
        # Set when a training step is traced, not in `build`: the optimizer is built, and its state
        # loaded, for the range too, and needs it again when the range is no longer frozen.
        for variable in (self.low, self.high):
            variable.trainable = moves and self.trainable

    def step(self, joint: Any = None) -> Any:
        """Return the distance between neighbouring values, a float32 scalar; `joint` as in `call`.

        It is 0 while values are not rounded: until the range is known, and in `calibrate`.
        """
        if self.observing:
            return tf.zeros(())
        low, high = self.fixed or _joined(*self._bounds(), joint)
        step = tf.cast(numerics.step_size(low, high, self.bits), tf.float32)
        return step if self.fixed else tf.where(tf.convert_to_tensor(self.seen) > 0.0, step, 0.0)

    def _bounds(self) -> tuple[Any, Any]:
        low, high = tf.convert_to_tensor(self.low), tf.convert_to_tensor(self.high)
        return numerics.symmetric_range(low, high, self.bits) if self.symmetric else (low, high)

    def _follow(self, inputs: Any, follower: Observer) -> None:
        """Let the range follow a batch."""
        old_low, old_high = tf.convert_to_tensor(self.low), tf.convert_to_tensor(self.high)
        seen = tf.convert_to_tensor(self.seen)
        first, again = seen < float(self.calls), tf.constant(False)
        if not self.observing:
            again = ~first & (seen < float(self.calls * (1 + _EARLY)))
            again = tf.cond(
                again, lambda: off_by_far(old_low, old_high, inputs), lambda: tf.constant(False)
            )
        start_low, start_high = (tf.where(again, 0.0, old) for old in (old_low, old_high))
        low, high = follower.update(start_low, start_high, inputs, first | again)
        if self.calls > 1:
            low, high = tf.minimum(low, old_low), tf.maximum(high, old_high)
        if not self.observing:
            low, high = (
                tf.debugging.check_numerics(bound, self._diverged) for bound in (low, high)
            )
        self.low.assign(low)
        self.high.assign(high)
        self.seen.assign(tf.minimum(seen + 1.0, _MANY))

    @property
    def _diverged(self) -> str:
        return (
            f"The values that '{self.name}' rounds are not finite: training has diverged, or the "
            "data hold NaN. Go back to an earlier checkpoint, and lower the learning rate"
        )

    def forget(self) -> None:
        """Make the range unknown again."""
        for variable in (self.low, self.high, self.seen):
            variable.assign(0.0)

    def begin(self) -> None:
        """Take the range as where training begins, however many batches it comes from."""
        self.seen.assign(tf.minimum(tf.convert_to_tensor(self.seen), float(self.calls)))

    def range(self, joint: tuple[float, float] | None = None) -> tuple[float, float]:
        """Return the lowest and the highest value, as they are now; `joint` as in `call`.

        Raises:
            ConversionError: If the range is not known yet, or is NaN or infinite.
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
        if joint is not None and _close(high - low, joint[1] - joint[0]):
            return joint
        return low, high

    def _check_bits(self) -> None:
        if self.bits != 8:
            raise ConversionError(
                f"'{self.name}' quantizes to {self.bits} bits, and a .tflite file is made with "
                "8-bit activations only. Make the model with FakeQuant(bits=8)."
            )

    def compute_output_spec(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the shape and dtype of what `call` returns."""
        if kwargs.get("only_step"):
            return keras.KerasTensor((), "float32")
        if kwargs.get("only_range"):
            return keras.KerasTensor((2,), "float32")
        return keras.KerasTensor(inputs.shape, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return all arguments of the layer."""
        return {
            **super().get_config(),
            "ranges": self.ranges,
            "momentum": self.momentum,
            "symmetric": self.symmetric,
            "fixed": self.fixed,
            "calls": self.calls,
            "frozen": self.frozen,
            "bits": self.bits,
            "integers": self.integers,
            "detached": self.detached,
        }


def _joined(low: Any, high: Any, joint: Any) -> tuple[Any, Any]:
    """Return the joint range if it is known and about as wide, else the own one."""
    if joint is None:
        return low, high
    joint_low, joint_high = (tf.cast(bound, tf.float32) for bound in tf.unstack(joint))
    close = _close(high - low, joint_high - joint_low)
    return tf.where(close, joint_low, low), tf.where(close, joint_high, high)


def _close(width: Any, joint: Any) -> Any:
    return (joint <= 2.0 * width) & (width <= 2.0 * joint)


_EARLY = 10  # Batches of training in which a range that is off by far is set anew.
_MANY = 1e6  # Counted no further, far from where float32 stops counting.


def fake_quants(model: keras.Model) -> Iterator[FakeQuant]:
    """Yield the `FakeQuant` layers of a model whose range is not fixed, each once."""
    for layer in all_layers(model):
        if isinstance(layer, FakeQuant) and layer.fixed is None:
            yield layer
