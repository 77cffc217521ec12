"""Cut heads and MLP units of a transformer so that the rest makes up for them.

The optimal brain surgeon (Hassibi & Stork 1993) on the layers of a block, one after another, as in
ZipLM (Kurtic et al. 2023, https://arxiv.org/abs/2302.04089). The kernel that reads what is cut is
fitted anew by least squares on samples: it writes into the stream of residuals what the original
writes there, less the errors of the blocks before.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Samples = dict[str, Array]

DAMPING = 0.01
TOGETHER = 24  # units that are chosen before the rest is fitted again


def best_rows(x: Array, wanted: Array, keep: int, block: int = 1) -> Array:
    """Fit `x @ kernel` to what is wanted, with few blocks of rows that are not zero.

    Args:
        x: Shape (samples, inputs), with a mean of zero.
        wanted: Shape (samples, outputs), with a mean of zero.
        keep: Blocks that stay.
        block: Rows of a block: 1 for units, the head width for heads.

    Returns:
        A kernel of shape (inputs, outputs).
    """
    inverse = _inverse(x)
    kernel = inverse @ (x.T @ wanted).astype("float64")
    rows = np.arange(len(inverse))
    while (count := len(rows) // block) > keep:
        parts = inverse.reshape(count, block, count, block)[range(count), :, range(count)]
        split = kernel.reshape(count, block, -1)
        loss = np.sum(split * np.linalg.solve(parts, split), axis=(1, 2))
        chosen = np.argsort(loss)[: min(TOGETHER if block == 1 else 1, count - keep)]
        out = (chosen[:, None] * block + np.arange(block)).ravel()
        rest = np.setdiff1d(np.arange(len(rows)), out)
        shift = inverse[np.ix_(rest, out)] @ np.linalg.inv(inverse[np.ix_(out, out)])
        kernel = kernel[rest] - shift @ kernel[out]
        inverse = inverse[np.ix_(rest, rest)] - shift @ inverse[np.ix_(out, rest)]
        rows = rows[rest]
    whole = np.zeros((x.shape[1], wanted.shape[1]))
    whole[rows] = kernel
    return whole


def _inverse(x: Array) -> Array:
    """Invert the products of inputs with each other."""
    products = (x.T @ x).astype("float64")
    products[np.diag_indices(len(products))] += DAMPING * np.trace(products) / len(products)
    found: Array = np.linalg.inv(products)
    return found


def cut(
    teacher: keras.Model, student: keras.Model, samples: Samples, heads: float, units: float
) -> None:
    """Make a share of the heads and MLP units of each block zero, and fit what reads the others.

    `prune_channels` with these shares then takes them out, and the function stays.

    Args:
        teacher: An opened encoder of KerasHub.
        student: A copy of it, which is changed.
        samples: What they read: `padding_mask` among it.
        heads: Share of the heads to cut in each block.
        units: Share of the units to cut in each block.
    """
    real = samples["padding_mask"].astype(bool)

    def states(model: keras.Model, tensors: list[Any]) -> list[Array]:
        found = keras.Model(model.inputs, tensors).predict(samples, verbose=0)
        return [values[real] for values in found]

    ends = ("self_attention_layer_norm", "feedforward_layer_norm")
    norms = [[layer for layer in model.layers if layer.name.endswith(ends)]
             for model in (teacher, student)]  # fmt: skip
    goals = states(teacher, [norm.input for norm in norms[0]])
    for norm, goal in zip(norms[1], goals, strict=True):
        start = norm.name.removesuffix("_norm")
        if norm.name.endswith(ends[0]):
            attention = student.get_layer(start)
            _without_heads(attention, norm, goal, states, student, heads)
        else:
            start = norm.name.removesuffix("layer_norm")
            made = student.get_layer(f"{start}intermediate_dense")
            read = student.get_layer(f"{start}output_dense")
            x, written, stream = states(student, [read.input, read.output, norm.input])
            kernel, bias = _fitted(x, goal - (stream - written), units, 1)
            read.set_weights([kernel, bias])
            alive = kernel.any(1)
            made.set_weights([part * alive for part in made.get_weights()])


def _without_heads(
    attention: Any, norm: Any, goal: Array, states: Any, student: keras.Model, share: float
) -> None:
    """Make heads of a layer zero."""
    heads, width, size = attention.output_dense.kernel.shape
    # What the heads give, before the product with the last kernel.
    identity = np.eye(heads * width, size).reshape(heads, width, size)
    attention.output_dense.set_weights([identity, np.zeros(size)])
    x, stream = states(student, [attention.output, norm.input])
    kernel, bias = _fitted(x, goal - (stream - x), share, width)
    kernel = kernel.reshape(heads, width, size)
    attention.output_dense.set_weights([kernel, bias])
    alive = kernel.any((1, 2))[:, None]
    for dense in (attention.query_dense, attention.key_dense, attention.value_dense):
        dense.set_weights([part * alive for part in dense.get_weights()])


def _fitted(x: Array, wanted: Array, share: float, block: int) -> tuple[Array, Array]:
    """Return a kernel with zero rows, and its bias."""
    keep = round(x.shape[1] // block * (1 - share))
    middle, target = x.mean(0), wanted.mean(0)
    kernel = best_rows(x - middle, wanted - target, keep, block)
    return kernel, target - middle @ kernel
