"""`SmoothL0`: a smooth count of the weights that are not zero, as a regularizer."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfcompress.edge.arguments import check_choice, check_number

__all__ = ["SmoothL0"]

_SHAPES = ("exponential", "rational")


@keras.saving.register_keras_serializable("tfcompress")
class SmoothL0(keras.regularizers.Regularizer):  # type: ignore[misc]
    """Penalize each weight that is not zero by about `l0`, with a gradient.

    The number of nonzero weights (the L0 "norm") has no gradient. `sum(1 - exp(-|w| / epsilon))`,
    or `sum(|w| / (|w| + epsilon))`, approaches it as `epsilon` falls. L1 pulls all weights alike,
    so it also shrinks the large ones. These penalties pull hardest near zero and hardly touch
    weights far above `epsilon`. Weights come near zero, not to zero: `Prune` does the rest.

    >>> count = SmoothL0(1.0, epsilon=0.01)
    >>> round(float(count(keras.ops.array([0.0, 0.0, 0.5, -2.0]))), 3)
    2.0

    `tfcompress.regularize` sets it on the layers of a built model that match `filters`.

    Args:
        l0: Penalty of one weight that is not zero. Defaults to 1e-4.
        epsilon: Magnitude below which a weight counts as nearly zero. Much larger weights have no
            gradient, so take a value near the kernel's typical magnitude. Defaults to 0.05.
        shape: `"exponential"` (the default), or `"rational"`, which pulls large weights more.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `l0` is negative, `epsilon` not above zero, or the shape is unknown.

    Reference:
        Bradley & Mangasarian 1998, "Feature selection via concave minimization and support vector
        machines" (exponential); Geman & Reynolds 1992, "Constrained restoration and the recovery of
        discontinuities" (rational)
    """

    def __init__(self, l0: float = 1e-4, epsilon: float = 0.05, shape: str = "exponential") -> None:
        self.l0 = check_number("l0", l0, 0)
        self.epsilon = check_number("epsilon", epsilon, above=0)
        self.shape = check_choice("shape", shape, _SHAPES)

    def __call__(self, x: Any) -> Any:
        """Return the penalty, a scalar."""
        size = ops.abs(x)
        if self.shape == "exponential":
            return self.l0 * ops.sum(-ops.expm1(-size / self.epsilon))
        return self.l0 * ops.sum(size / (size + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        """Return all arguments."""
        return {"l0": self.l0, "epsilon": self.epsilon, "shape": self.shape}
