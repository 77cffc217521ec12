"""Group lasso: a penalty that drives whole channels to zero, for channel pruning to cut."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from tfcompress.edge.arguments import check_integer, check_number

__all__ = ["GroupLasso"]

_MOST_AXES = 5  # as the kernel of a Conv3D has


@keras.saving.register_keras_serializable("tfcompress")
class GroupLasso(keras.regularizers.Regularizer):  # type: ignore[misc]
    """Penalize the L2 norm of each channel of a kernel.

    The penalty is `strength * sum_c sqrt(n) * ||w_c||_2`, with the `n` weights `w_c` of channel
    `c`. L2 shrinks all channels alike; group lasso shrinks some of them to zero.

    >>> kernel = keras.ops.convert_to_tensor([[3.0, 0.0], [4.0, 0.0]])
    >>> round(float(GroupLasso(0.1)(kernel)), 4)
    0.7071

    Set it on a model that is built with `tfcompress.regularize(model, GroupLasso(1e-4), "conv")`.

    Args:
        strength: Factor of the penalty. Defaults to 1e-4.
        axis: Axis of the kernel that runs over the channels. Defaults to -1, the outputs of `Dense`
            and `Conv` layers. For the outputs of a transposed convolution use -2.

    Raises:
        TypeError: `strength` is no number, or `axis` no integer.
        ValueError: `strength` is below 0 or not finite, or no kernel has such an `axis`.

    Reference:
        Wen et al., "Learning Structured Sparsity in Deep Neural Networks",
        https://arxiv.org/abs/1608.03665; Yuan and Lin, 2006.
    """

    def __init__(self, strength: float = 1e-4, axis: int = -1) -> None:
        self.strength = check_number("strength", strength, 0)
        self.axis = check_integer("axis", axis, -_MOST_AXES, _MOST_AXES - 1)

    def __call__(self, x: Any) -> Any:
        """Return the penalty of a kernel, a scalar."""
        rank = len(x.shape)
        others = [axis for axis in range(rank) if axis != self.axis % rank]
        count = math.prod(x.shape[axis] for axis in others)
        # The root has no gradient at zero, which is where channels end.
        norms = ops.sqrt(ops.sum(ops.square(x), axis=others) + keras.config.epsilon() ** 2)
        return self.strength * math.sqrt(count) * ops.sum(norms - keras.config.epsilon())

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {"strength": self.strength, "axis": self.axis}
