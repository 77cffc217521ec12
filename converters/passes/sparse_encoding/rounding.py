"""Float weights -> int8 values and a step per channel. Runs in child processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graph import Array


@dataclass(frozen=True)
class Grid:
    """Weights on a symmetric int8 grid: `values * scale` along `axis`.

    Attributes:
        values: int8, -127 to 127.
        scale: float32, one step per channel.
        axis: Axis of the channels.
        dtype: Type that the weights were stored in before.
    """

    values: Array
    scale: np.ndarray[Any, np.dtype[np.float32]]
    axis: int
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, weights: Array, axis: int) -> Grid:
        """Round weights to the nearest grid points; zeros stay zeros.

        >>> import numpy as np
        >>> grid = Grid.of(np.array([[0.5, -0.25, 0.0], [0.0, 0.0, 0.0]], np.float32), axis=0)
        >>> grid.values.tolist(), grid.scale[1].item()
        ([[127, -64, 0], [0, 0, 0]], 1.0)

        Args:
            weights: float32 or float16, any shape.
            axis: Axis of the channels.

        Returns:
            The grid; a channel of zeros has the step 1.
        """
        others = tuple(a for a in range(weights.ndim) if a != axis)
        wide = weights.astype(np.float32)
        largest = np.abs(wide).max(axis=others, initial=0.0)
        scale = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
        # A channel of tiny numbers has a step that underflows to zero.
        scale = np.maximum(scale, np.finfo(np.float32).tiny)
        values = np.clip(np.rint(wide / _along(scale, axis, weights.ndim)), -127, 127)
        return cls(values.astype(np.int8), scale, axis, weights.dtype)

    def weights(self) -> Array:
        """Return the float32 weights that DEQUANTIZE computes."""
        return self.values.astype(np.float32) * _along(self.scale, self.axis, self.values.ndim)


def _along(scale: Array, axis: int, rank: int) -> Array:
    return scale.reshape([-1 if a == axis else 1 for a in range(rank)])
