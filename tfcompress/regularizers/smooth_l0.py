"""How complex weights are, as a regularizer: a smooth count of those that are not zero."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["SmoothL0"]

_SHAPES = ("exponential", "rational")


@keras.saving.register_keras_serializable("tfcompress")
class SmoothL0(keras.regularizers.Regularizer):  # type: ignore[misc]
    """About `l0` for each weight that is not zero: a count that has a gradient.

    The count of nonzero weights (the L0 "norm") has none. `sum(1 - exp(-|w| / epsilon))`, or
    `sum(|w| / (|w| + epsilon))`, comes close to it as `epsilon` falls. Where L1 pulls all weights
    alike, and so makes the large ones too small, these leave alone what is far above `epsilon`, and
    pull hardest near zero. Weights come near zero so, not to zero: `Prune` does the rest.

    >>> count = SmoothL0(1.0, epsilon=0.01)
    >>> round(float(count(keras.ops.array([0.0, 0.0, 0.5, -2.0]))), 3)
    2.0

    `tfcompress.regularize` sets it on a built model, on the layers that `filters` means.

    Args:
        l0: Penalty of one weight that is not zero. Defaults to 1e-4.
        epsilon: Size below which a weight counts as nearly zero. Weights much larger feel nothing;
            so take some of the usual size of the kernel's. Defaults to 0.05.
        shape: `"exponential"` (the default) or `"rational"`, which pulls at large weights more.

    Raises:
        ValueError: `l0` is negative, `epsilon` not above zero, or the shape is unknown.

    Reference:
        Bradley & Mangasarian 1998, "Feature selection via concave minimization and support vector
        machines" (exponential); Geman & Reynolds 1992, "Constrained restoration and the recovery of
        discontinuities" (rational)
    """

    def __init__(self, l0: float = 1e-4, epsilon: float = 0.05, shape: str = "exponential") -> None:
        if not isinstance(l0, int | float) or not 0.0 <= l0 < float("inf"):
            raise ValueError(f"`l0` must be a number from 0. Received: l0={l0!r}")
        if not isinstance(epsilon, int | float) or not 0.0 < epsilon < float("inf"):
            raise ValueError(f"`epsilon` must be a number above 0. Received: epsilon={epsilon!r}")
        if shape not in _SHAPES:
            raise ValueError(f"`shape` must be one of {_SHAPES}. Received: shape={shape!r}")
        self.l0 = float(l0)
        self.epsilon = float(epsilon)
        self.shape = shape

    def __call__(self, x: Any) -> Any:
        """The penalty, a scalar."""
        size = ops.abs(x)
        if self.shape == "exponential":
            return self.l0 * ops.sum(-ops.expm1(-size / self.epsilon))
        return self.l0 * ops.sum(size / (size + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        """All arguments."""
        return {"l0": self.l0, "epsilon": self.epsilon, "shape": self.shape}
