"""How far an output of a .tflite file is from the output of the Keras model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tfcompress.model.samples import Array


@dataclass(frozen=True)
class OutputError:
    """The difference between one output of a file and of its Keras model.

    >>> error = compare("y", np.array([[1.0, 2.0]]), np.array([[1.0, 2.5]]), scale=0.25)
    >>> error.max_error, error.max_lsb, error.top1
    (0.5, 2.0, 1.0)

    Attributes:
        name: Name of the output.
        max_error: Largest absolute difference; infinite if one side alone is NaN or infinite.
        mean_error: Mean absolute difference.
        max_lsb: `max_error` in steps of the quantized output; None if it is not quantized.
        mean_lsb: `mean_error` in steps of the quantized output; None if it is not quantized.
        scale: Step of the quantized output; None if it is not quantized.
        snr_db: Signal-to-noise ratio: 10 log10 of signal power over error power, in dB; infinite
            if the outputs are equal.
        cosine: Cosine of the angle between the two outputs, each taken as one vector.
        top1: Share of rows (along the last axis) whose largest element is at the same index; None
            for an output without such an axis.
        nonfinite: Number of elements that are NaN or infinite on one side and something else on
            the other. Elements that are equally so on both sides are left out of all figures.
        channel_r2: Share of the variation of each channel (of the last axis) that the file keeps:
            the coefficient of determination, 1 - error power / variance. 1 is perfect, and at 0 the
            mean would do as well. None for a channel that does not vary.
    """

    name: str
    max_error: float
    mean_error: float
    max_lsb: float | None
    mean_lsb: float | None
    scale: float | None
    snr_db: float
    cosine: float
    top1: float | None
    nonfinite: int = 0
    channel_r2: tuple[float | None, ...] = ()

    @property
    def worst_channel(self) -> int | None:
        """Return the channel that keeps the smallest share of its variation; None without any."""
        known = [(r2, channel) for channel, r2 in enumerate(self.channel_r2) if r2 is not None]
        return min(known)[1] if known else None

    @property
    def worst_r2(self) -> float | None:
        """Return the `channel_r2` of the worst channel; None if no channel varies."""
        return None if self.worst_channel is None else self.channel_r2[self.worst_channel]


def compare(name: str, expected: Array, actual: Array, scale: float | None) -> OutputError:
    """Compute the figures for one output.

    >>> compare("y", np.array([[1.0, 2.0]]), np.array([[1.0, 2.5]]), scale=0.25).max_lsb
    2.0

    Args:
        name: Name of the output.
        expected: Output of Keras, any shape.
        actual: Output of the file, of equal shape, in real numbers.
        scale: Step of the quantized output; None if it is not quantized.

    Returns:
        The figures.

    Raises:
        ValueError: The shapes differ.
    """
    if expected.shape != actual.shape:
        raise ValueError(
            f"Output '{name}' has shape {actual.shape} in the file, {expected.shape} in Keras"
        )
    a, b = expected.astype(np.float64), actual.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    nonfinite = int((~same & ~(np.isfinite(a) & np.isfinite(b))).sum())
    finite = np.isfinite(a) & np.isfinite(b)
    x, error = a[finite], np.abs(b[finite] - a[finite])
    y = b[finite]
    largest = math.inf if nonfinite else float(error.max(initial=0.0))
    mean = math.inf if nonfinite else float(error.mean()) if error.size else 0.0
    noise, signal = float(np.sum(error**2)), float(np.sum(x**2))
    if nonfinite:
        snr = -math.inf
    elif noise == 0:
        snr = math.inf
    else:
        snr = 10 * math.log10(signal / noise) if signal else -math.inf
    norm = math.sqrt(signal) * float(np.linalg.norm(y))
    top1 = None
    if a.ndim >= 2 and a.shape[-1] > 1:
        top1 = float(np.mean(a.argmax(-1) == b.argmax(-1)))
    return OutputError(
        name=name,
        max_error=largest,
        mean_error=mean,
        max_lsb=None if scale is None else largest / scale,
        mean_lsb=None if scale is None else mean / scale,
        scale=scale,
        snr_db=snr,
        cosine=float(x @ y) / norm if norm else float(noise == 0),
        top1=top1,
        nonfinite=nonfinite,
        channel_r2=channel_r2(a, b),
    )


def channel_r2(expected: Array, actual: Array) -> tuple[float | None, ...]:
    """Compute the coefficient of determination of each channel, the last axis.

    One figure for a whole output hides a dead channel beside others of larger values.

    >>> channel_r2(np.array([[0.0, 0.0], [500.0, 1.0]]), np.array([[0.0, 0.5], [500.0, 0.5]]))
    (1.0, 0.0)

    Args:
        expected: Output of Keras, any shape. A vector is one channel.
        actual: Output of the file, of equal shape.

    Returns:
        A figure for each channel; None for one that does not vary, or that is not finite.
    """
    channels = expected.shape[-1] if expected.ndim > 1 else 1
    x = expected.reshape(-1, channels).astype(np.float64)
    y = actual.reshape(-1, channels).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        variance, noise = x.var(0), ((y - x) ** 2).mean(0)
        # What varies by rounding errors of float32 only does not vary.
        varies = np.sqrt(variance) > 1e-5 * np.abs(x).max(0, initial=0.0)
        r2 = 1 - noise / variance
    known = varies & np.isfinite(r2)
    return tuple(float(v) if k else None for v, k in zip(r2, known, strict=True))
