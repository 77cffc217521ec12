"""One step of a recurrent cell as int8 ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import activations, layers, ops

from tfcompress.quantization.executor import Executor
from tfcompress.quantization.numerics import fake_quant
from tfcompress.quantization.ops.activations import fixed_range, is_fused

__all__ = ["CELLS", "SQUASHING", "Cell", "dropout_masks"]

Tensor = Any
Round = Callable[[str, Tensor], Tensor]
"""Rounds the inner tensor of a name to int8."""


def dropout_masks(cell: Any, like: Tensor, rate: float, training: bool | None) -> list[Tensor]:
    """Return masks for all steps of a batch: one per gate or one for all, as the cell needs."""
    if not (training and rate > 0.0):
        return []
    ones, count = ops.ones_like(like), getattr(cell, "dropout_mask_count", 1)
    return [keras.random.dropout(ones, rate, seed=cell.seed_generator) for _ in range(count)]


def _multiply(x: Tensor, kernel: Tensor, drops: Sequence[Tensor] = ()) -> Tensor:
    """Return `x @ kernel`, with a dropout mask for each part of the kernel's columns."""
    kernel = ops.cast(kernel, x.dtype)
    if not drops:
        return ops.matmul(x, kernel)
    parts = ops.split(kernel, len(drops), axis=-1)
    products = [ops.matmul(x * drop, part) for drop, part in zip(drops, parts, strict=True)]
    return ops.concatenate(products, axis=-1)


class Cell:
    """Compute the steps of a Keras cell. Its kernels are read once for all steps.

    Args:
        q: Executor of the call.
        cell: Keras cell.
        rounding: Rounds the inner tensor of a name.
    """

    def __init__(self, q: Executor, cell: Any, rounding: Round) -> None:
        self.q = q
        self.cell = cell
        self.round = rounding
        self.kernel = q.kernel(cell, "kernel")
        self.recurrent = q.kernel(cell, "recurrent_kernel")
        self.bias: Tensor = ops.convert_to_tensor(cell.bias) if cell.use_bias else None

    def project(self, x: Tensor, step: Any, drops: Sequence[Tensor]) -> Tensor:
        """Multiply (batch, steps, features) by the kernel, as one product, and add the bias.

        Args:
            x: Input sequences, a float tensor (batch, steps, features).
            step: Distance between neighbouring values of `x`, a float scalar or None.
            drops: Dropout masks, one per gate or one for all; empty without dropout.

        Returns:
            Tensor (batch, steps, gates * units).
        """
        if drops:
            y = _multiply(x, self.kernel, [drop[:, None] for drop in drops])
        else:
            y = _multiply(ops.reshape(x, (-1, x.shape[-1])), self.kernel)
        y = self._add_bias(y, self.bias, step, self.kernel)
        return ops.reshape(y, (-1, x.shape[1], y.shape[-1]))

    def _add_bias(self, y: Tensor, bias: Tensor | None, step: Any, kernel: Tensor) -> Tensor:
        """Add the bias of a product with a kernel, rounded as TFLite does."""
        if bias is None:
            return y
        return y + ops.cast(self.q.round_bias(bias, step, kernel), y.dtype)

    def activate(self, function: Any, x: Tensor) -> Tensor:
        """Apply a function for which TFLite prescribes the range of the int8 output."""
        bounds = fixed_range(function)
        assert bounds is not None
        return fake_quant(function(x), *bounds)

    def __call__(
        self, x: Tensor, states: list[Any], drops: Sequence[Tensor], step: Any
    ) -> list[Tensor]:
        """Return the next states, the output first.

        Args:
            x: Projected input of this step, a float tensor (batch, gates * units).
            states: States before this step. None stands for zero, and costs no op.
            drops: Dropout masks of the state, one per gate or one for all; empty without dropout.
            step: Distance between neighbouring values of the first state, a float scalar or None.
        """
        raise NotImplementedError


class _Simple(Cell):
    """Compute h' = f(W x + b + U h)."""

    def __call__(
        self, x: Tensor, states: list[Any], drops: Sequence[Tensor], step: Any
    ) -> list[Tensor]:
        (h,), function = states, self.cell.activation
        if h is not None:
            x = x + self.round("recurrent", _multiply(h, self.recurrent, drops))
        if is_fused(function):
            return [self.round("hidden", function(x))]
        x = x if h is None else self.round("sum", x)
        return [self.round("hidden", self.activate(function, x))]


class _Lstm(Cell):
    """Compute c' = f c + i g and h' = o tanh(c'), with the gates i, f, o and the candidate g."""

    def __call__(
        self, x: Tensor, states: list[Any], drops: Sequence[Tensor], step: Any
    ) -> list[Tensor]:
        h, c = states
        squash, gate = self.cell.activation, self.cell.recurrent_activation
        if h is not None:
            product = self.round("recurrent", _multiply(h, self.recurrent, drops))
            x = self.round("gates", x + product)
        i, f, g, o = ops.split(x, 4, axis=-1)
        if c is None:
            # Nothing reads f here, and the converter leaves a SPLIT in float if a part is unread.
            n = self.cell.units
            i, g, o = x[:, :n], x[:, 2 * n : 3 * n], x[:, 3 * n :]
        new = self.activate(gate, i) * self.activate(squash, g)
        if c is not None:
            kept = self.round("kept", self.activate(gate, f) * c)
            new = kept + self.round("written", new)
        c = self.round("cell", new)
        return [self.round("hidden", self.activate(gate, o) * self.activate(squash, c)), c]


class _Gru(Cell):
    """Compute h' = h + u (g - h), with the candidate g and the update gate u = 1 - z.

    Keras has z h + (1 - z) g. As 1 - sigmoid(a) = sigmoid(-a), the columns of z change their sign;
    then u = 0 keeps the state exactly, which an int8 z, 255/256 at most, would not.
    """

    def __init__(self, q: Executor, cell: Any, rounding: Round) -> None:
        super().__init__(q, cell, rounding)
        dtype = keras.backend.standardize_dtype(self.kernel.dtype)
        signs = np.repeat(np.array([-1.0, 1.0], dtype), [cell.units, 2 * cell.units])
        self.kernel, self.recurrent = self.kernel * signs, self.recurrent * signs
        self.recurrent_bias = None
        if cell.use_bias:
            biases = self.bias * signs
            self.bias = biases[0] if cell.reset_after else biases
            self.recurrent_bias = biases[1:] if cell.reset_after else None

    def __call__(
        self, x: Tensor, states: list[Any], drops: Sequence[Tensor], step: Any
    ) -> list[Tensor]:
        (h,), units = states, self.cell.units
        after = self.cell.reset_after
        x, x_candidate = ops.split(x, [2 * units], axis=-1)
        recurrent = self._product(h, drops, step)
        candidate = None
        if recurrent is not None:
            if after:
                recurrent, candidate = ops.split(recurrent, [2 * units], axis=-1)
            x = self.round("gates", x + recurrent)
        gate = self.cell.recurrent_activation
        if candidate is None and h is None:  # nothing reads the reset gate; see `_Lstm`
            update = self.activate(gate, x[:, :units])
        else:
            update, reset = ops.split(self.activate(gate, x), 2, axis=-1)
        if candidate is not None:
            candidate = self.round("reset", reset * candidate)
        elif not after and h is not None:
            dropped = h * drops[2] if drops else h
            kept = self.round("reset", reset * dropped)
            product = _multiply(kept, self.recurrent[:, 2 * units :])
            candidate = self.round("recurrent_candidate", product)
        if candidate is not None:
            x_candidate = self.round("candidate", x_candidate + candidate)
        new = self.activate(self.cell.activation, x_candidate)
        if h is None:
            return [self.round("hidden", update * new)]
        move = self.round("update", update * self.round("difference", new - h))
        return [self.round("hidden", h + move)]

    def _product(self, h: Tensor | None, drops: Sequence[Tensor], step: Any) -> Tensor | None:
        """Return the state times the recurrent kernel, without the candidate if reset before."""
        if h is None:
            bias = self.recurrent_bias
            return None if bias is None else self.round("recurrent", bias)
        if not self.cell.reset_after:
            kernel = self.recurrent[:, : 2 * self.cell.units]
            return self.round("recurrent", _multiply(h, kernel, drops[:2]))
        product = _multiply(h, self.recurrent, drops)
        product = self._add_bias(product, self.recurrent_bias, step, self.recurrent)
        return self.round("recurrent", product)


CELLS: dict[type, type[Cell]] = {
    layers.GRU: _Gru,
    layers.LSTM: _Lstm,
    layers.SimpleRNN: _Simple,
}
"""The cell of each layer that is supported."""

SQUASHING = (activations.sigmoid, activations.tanh)
"""Activations whose int8 output has a range that TFLite prescribes."""
