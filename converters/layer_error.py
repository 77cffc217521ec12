"""How far the output of each layer is from Keras', in a .tflite file: where an error enters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.table import Table

from tfcompress.model.samples import Array
from tfcompress.model.tables import new_table

__all__ = ["LayerError", "Sums", "layer_table"]

_RESCALED = 10.0
"""By so many dB must channels agree better, once each is scaled, to count as scaled on purpose."""

_ROWS = 8
"""A factor for each channel fits fewer values by chance."""


@dataclass(frozen=True)
class LayerError:
    """The difference between the output of a layer in a file and in Keras.

    Attributes:
        layer: Path of the layer.
        op: The op of the file that computes it.
        snr_db: Signal-to-noise ratio: 10 log10 of signal power over error power, in dB; infinite if
            the outputs are equal.
        channels_db: Signal-to-noise ratio with equal weight for each channel: one over the mean of
            error power over signal power, in dB. Much lower than `snr_db` where faint channels,
            which the next layer may need, are lost beside large ones.
        lost_db: By how much the ratio is lower than the lowest of what the op reads; None if that
            is not known. Where it is high, the error enters.
        uneven: How often the median channel's largest value fits into the largest channel's.
        dtype: Type of the tensor in the file.
        rescaled: Whether the file has other scales of channels than the model, as `equalize` gives
            them. They are scaled back before the comparison.
    """

    layer: str
    op: str
    snr_db: float
    channels_db: float
    lost_db: float | None
    uneven: float
    dtype: str
    rescaled: bool


class Sums:
    """Sums over batches, from which the error of a tensor follows.

    >>> sums = Sums()
    >>> sums.add(np.array([[1.0, 2.0]]), np.array([[1.0, 2.2]]))
    >>> round(sums.snr_db(), 1), sums.rescaled
    (21.0, False)
    """

    def __init__(self) -> None:
        self._xx = self._xy = self._yy = self._noise = np.zeros(1)
        self._rows = 0
        self.largest: npt.NDArray[np.float64] = np.zeros(1)

    def add(self, expected: Array, actual: Array) -> None:
        """Add a batch.

        Args:
            expected: Output of Keras, channels last.
            actual: Output of the file, of equal shape, in real numbers.
        """
        channels = expected.shape[-1] if expected.ndim > 1 else 1
        x = expected.reshape(-1, channels).astype(np.float64)
        y = actual.reshape(-1, channels).astype(np.float64)
        self._rows += len(x)
        self._xx = self._xx + (x * x).sum(0)
        self._xy = self._xy + (x * y).sum(0)
        self._yy = self._yy + (y * y).sum(0)
        self._noise = self._noise + ((x - y) ** 2).sum(0)
        self.largest = np.maximum(self.largest, np.abs(x).max(0, initial=0.0))

    @property
    def rescaled(self) -> bool:
        """Return whether the channels agree once each is scaled, and not before."""
        plain = self._plain()
        if self._rows < _ROWS or not self._xx.sum() or plain == math.inf:
            return False
        return self._scaled() - max(plain, 0.0) > _RESCALED

    def snr_db(self) -> float:
        """Return the signal-to-noise ratio in dB, of rescaled channels as they are scaled back."""
        return self._scaled() if self.rescaled else self._plain()

    def channels_db(self) -> float:
        """Return the signal-to-noise ratio in dB with equal weight for each channel."""
        noise = self._left() if self.rescaled else self._noise
        used = self._xx > 0
        return _ratio(float(used.sum()), float((noise[used] / self._xx[used]).sum()))

    def _plain(self) -> float:
        return _ratio(float(self._xx.sum()), float(self._noise.sum()))

    def _scaled(self) -> float:
        return _ratio(float(self._xx.sum()), float(self._left().sum()))

    def _left(self) -> npt.NDArray[np.float64]:
        """Return the error power of each channel, after the scale that suits it best."""
        safe = np.where(self._yy > 0, self._yy, 1.0)
        noise = np.where(self._xy > 0, self._xx - self._xy**2 / safe, self._xx)
        return np.maximum(noise, 0.0)


def layer_table(errors: Sequence[LayerError]) -> Table:
    """Return a table with a row for each layer."""
    numbers = ("SNR dB", "Channels dB", "Lost dB", "Largest / median")
    rescaled = any(error.rescaled for error in errors)
    table = new_table(
        ("Layer", "Op", *numbers, "In the file"),
        numbers=numbers,
        title="By layer, the worst first",
        caption="Rescaled: the file's channels have other scales, as `equalize` gives them."
        if rescaled
        else None,
    )
    for error in errors:
        table.add_row(
            error.layer,
            error.op,
            f"{error.snr_db:.1f}",
            f"{error.channels_db:.1f}",
            "" if error.lost_db is None or math.isinf(error.lost_db) else f"{error.lost_db:.1f}",
            f"{error.uneven:.1f}",
            f"{error.dtype}, rescaled" if error.rescaled else error.dtype,
        )
    return table


def _ratio(signal: float, noise: float) -> float:
    if math.isnan(signal) or math.isnan(noise):
        return -math.inf
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf
