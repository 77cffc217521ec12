"""Recurrent layers as int8 ops: unrolled step by step, with all inputs projected at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import activations, layers, ops

from tfcompress.quantization.fake_quant import keep_step, step_of
from tfcompress.quantization.numerics import fake_quant, round_bias
from tfcompress.quantization.ops.activations import fixed_range, is_fused

__all__ = ["applies", "bidirectional", "bidirectional_tensors", "compute", "tensors"]

Tensor = Any
Round = Callable[[str, Tensor], Tensor]
"""Rounds the inner tensor of a name to int8."""


def applies(layer: Any) -> str | None:
    """Why `compute` or `bidirectional` does not know the layer, or None if it does."""
    if isinstance(layer, layers.Bidirectional):
        reasons = [_unknown(part) for part in (layer.forward_layer, layer.backward_layer)]
        return next((reason for reason in reasons if reason), _free(layer))
    return _unknown(layer) or _free(layer)


def _unknown(layer: Any) -> str | None:
    if type(layer) not in _STEPS:
        return f"the cell of a {type(layer).__name__} is not known to int8"
    if layer.stateful:
        return "it keeps its state from batch to batch"
    for function in _functions(layer.cell):
        fuses = is_fused(function) and type(layer) is layers.SimpleRNN
        if function not in _SQUASHING and not fuses:
            name = getattr(function, "__name__", function)
            return f"its activation, {name}, has no int8 form within a recurrence"
    return None


def _functions(cell: Any) -> list[Any]:
    gates = getattr(cell, "recurrent_activation", None)
    return [cell.activation] if gates is None else [cell.activation, gates]


def _free(layer: Any) -> str | None:
    config = layer.get_build_config() or {}
    shapes = config.get("shapes_dict") or {"sequences_shape": config.get("input_shape")}
    shape = shapes["sequences_shape"]
    if shape is not None and shape[1] is None:
        return "its number of steps is free; with a fixed one in keras.Input it is int8"
    return None


def tensors(layer: Any, shape: Any) -> Sequence[str]:
    """The tensors between the ops of each step; all steps share a range."""
    return [*_names(layer), "hidden"]


def bidirectional_tensors(layer: Any, shape: Any) -> Sequence[str]:
    """Those of both directions, of which only the output's range is shared."""
    names = [f"forward_{name}" for name in _names(layer.forward_layer)]
    names += [f"backward_{name}" for name in _names(layer.backward_layer)]
    merged = {"sum": ["merged"], "mul": ["merged"], "ave": ["merged", "halved"]}
    return [*names, "hidden", *merged.get(layer.merge_mode, [])]


def _names(layer: Any) -> Sequence[str]:
    if type(layer) is layers.LSTM:
        return ("projected", "recurrent", "gates", "kept", "written", "cell")
    if type(layer) is layers.SimpleRNN:
        return ("projected", "recurrent") + (() if is_fused(layer.activation) else ("sum",))
    names = ("projected", "recurrent", "gates", "reset", "candidate", "difference", "update")
    return names if layer.reset_after else (*names, "recurrent_candidate")


def compute(
    q: Any,
    layer: Any,
    sequences: Tensor,
    initial_state: Any = None,
    mask: Any = None,
    training: bool | None = None,
) -> Any:
    """What an LSTM, GRU or SimpleRNN computes, with every tensor of every step in int8.

    Steps share their ranges: these follow what all steps of a batch reach together.

    Args:
        q: The wrapper, as recipes get it.
        layer: The layer.
        sequences: Tensor (batch, steps, features), the number of steps known.
        initial_state: As for the layer; the others too.
        mask: Which steps count.
        training: Whether to drop out.

    Returns:
        As the layer.

    Reference:
        Hochreiter & Schmidhuber 1997; Cho et al. 2014, https://arxiv.org/abs/1406.1078
    """
    seen = _Seen(q)
    steps, states = _unroll(q, layer, sequences, initial_state, mask, training, seen, "")
    seen.observe()
    y = ops.stack(steps, axis=1) if layer.return_sequences else steps[-1]
    return (y, *states) if layer.return_state else y


def bidirectional(
    q: Any,
    layer: Any,
    sequences: Tensor,
    initial_state: Any = None,
    mask: Any = None,
    training: bool | None = None,
) -> Any:
    """As `compute`, in both directions; their outputs share a range, so that they concatenate."""
    seen = _Seen(q)
    half = None if initial_state is None else len(initial_state) // 2
    parts = []
    for name, part in (("forward_", layer.forward_layer), ("backward_", layer.backward_layer)):
        state = None
        if half is not None:
            state = initial_state[:half] if part is layer.forward_layer else initial_state[half:]
        parts.append(_unroll(q, part, sequences, state, mask, training, seen, name))
    seen.observe()
    (ahead, states), (behind, more) = parts
    if layer.return_sequences:
        y, z = ops.stack(ahead, axis=1), ops.stack(behind[::-1], axis=1)
    else:
        y, z = ahead[-1], behind[-1]
    outputs = _merge(q, layer.merge_mode, y, z)
    if layer.return_state:
        outputs = (*outputs, *states, *more)
    return outputs if len(outputs) > 1 else outputs[0]


def _merge(q: Any, mode: str | None, y: Tensor, z: Tensor) -> tuple[Tensor, ...]:
    if mode is None:
        return y, z
    if mode == "concat":
        return (ops.concatenate([y, z], axis=-1),)
    merged = q.fake_quant("merged", y * z if mode == "mul" else y + z)
    return (q.fake_quant("halved", merged * 0.5) if mode == "ave" else merged,)


class _Seen:
    """What each inner tensor was at each step."""

    def __init__(self, q: Any) -> None:
        self.q = q
        self.tensors: dict[str, list[Tensor]] = {}

    def round(self, name: str, x: Tensor) -> Tensor:
        """Round to int8 in the range of this name as it is so far."""
        self.tensors.setdefault(name, []).append(x)
        return self.q.fake_quant(name, x, observe=False)

    def observe(self) -> None:
        """Let the ranges follow all steps at once."""
        for name, steps in self.tensors.items():
            self.q.observe(name, ops.concatenate([ops.reshape(x, [-1]) for x in steps]))


def _unroll(
    q: Any,
    layer: Any,
    x: Tensor,
    initial_state: Any,
    mask: Any,
    training: bool | None,
    seen: _Seen,
    prefix: str,
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs of all steps, in the order of computation, and the last states."""
    cell = layer.cell
    rounding: Round = lambda name, x: seen.round(prefix * (name != "hidden") + name, x)  # noqa: E731
    step, states = _STEPS[type(layer)](q, cell, rounding), [None] * len(layer.state_size)
    if initial_state is not None:
        states = keras.tree.flatten(initial_state)
        if mask is not None:
            # What a mask chooses from shares a range.
            states = [rounding(n, s) for n, s in zip(("hidden", "cell"), states, strict=False)]
    drops = _dropout(cell, x[:, 0], cell.dropout, training)
    inputs = rounding("projected", step.project(x, drops))
    drops = _dropout(cell, inputs[:, 0, : cell.units], cell.recurrent_dropout, training)
    count = x.shape[1]
    xs = ops.unstack(inputs, axis=1)
    masks: list[Any] = [None] * count
    if mask is not None:
        masks = [ops.expand_dims(m, -1) for m in ops.unstack(ops.cast(mask, "bool"), axis=1)]
    outputs: list[Tensor] = []
    for index in reversed(range(count)) if layer.go_backwards else range(count):
        fresh, counts = step(xs[index], states, drops), masks[index]
        output = fresh[0]
        if counts is not None:
            # Keras repeats the last output where a step is masked, at first zero.
            repeated = outputs[-1] if outputs and not layer.zero_output_for_mask else None
            output = _choose(counts, output, repeated)
            fresh = [_choose(counts, *pair) for pair in zip(fresh, states, strict=True)]
        states = fresh
        outputs.append(output)
    return outputs, states


def _choose(mask: Tensor, new: Tensor, old: Tensor | None) -> Tensor:
    return keep_step(ops.where(mask, new, ops.zeros((), new.dtype) if old is None else old), new)


def _dropout(cell: Any, like: Tensor, rate: float, training: bool | None) -> list[Tensor]:
    """Masks for all steps of a batch, one per gate or one for all, as the cell has it."""
    if not (training and rate > 0.0):
        return []
    ones, count = ops.ones_like(like), getattr(cell, "dropout_mask_count", 1)
    return [keras.random.dropout(ones, rate, seed=cell.seed_generator) for _ in range(count)]


def _multiply(x: Tensor, kernel: Tensor, drops: Sequence[Tensor] = ()) -> Tensor:
    """`x @ kernel`, with a dropout mask for each part of the kernel's columns."""
    kernel = ops.cast(kernel, x.dtype)
    if not drops:
        return ops.matmul(x, kernel)
    parts = ops.split(kernel, len(drops), axis=-1)
    products = [ops.matmul(x * drop, part) for drop, part in zip(drops, parts, strict=True)]
    return ops.concatenate(products, axis=-1)


def _add_bias(y: Tensor, bias: Tensor | None, x: Tensor, kernel: Tensor) -> Tensor:
    """The bias of the product of `x` and a kernel, rounded as TFLite does."""
    if bias is None:
        return y
    largest = ops.cast(ops.max(ops.abs(kernel), axis=0), "float32")
    bias = round_bias(ops.cast(bias, "float32"), step_of(x), largest)
    return y + ops.cast(bias, y.dtype)


class _Step:
    """One step of a cell: its kernels, read once for all steps."""

    def __init__(self, q: Any, cell: Any, rounding: Round) -> None:
        self.cell = cell
        self.round = rounding
        self.kernel = q.kernel(cell, "kernel")
        self.recurrent = q.kernel(cell, "recurrent_kernel")
        self.bias: Tensor = ops.convert_to_tensor(cell.bias) if cell.use_bias else None

    def project(self, x: Tensor, drops: Sequence[Tensor]) -> Tensor:
        """(batch, steps, features) times the kernel, as one product."""
        if drops:
            y = _multiply(x, self.kernel, [drop[:, None] for drop in drops])
        else:
            y = _multiply(ops.reshape(x, (-1, x.shape[-1])), self.kernel)
        y = _add_bias(y, self.bias, x, self.kernel)
        return ops.reshape(y, (-1, x.shape[1], y.shape[-1]))

    def activate(self, function: Any, x: Tensor) -> Tensor:
        """A function whose int8 output TFLite prescribes the range of."""
        bounds = fixed_range(function)
        assert bounds is not None
        return fake_quant(function(x), *bounds)

    def __call__(self, x: Tensor, states: list[Any], drops: Sequence[Tensor]) -> list[Tensor]:
        """The next states, the output first. A state of None is zero, and costs no op."""
        raise NotImplementedError


class _Simple(_Step):
    """h' = f(W x + b + U h)."""

    def __call__(self, x: Tensor, states: list[Any], drops: Sequence[Tensor]) -> list[Tensor]:
        (h,), function = states, self.cell.activation
        if h is not None:
            x = x + self.round("recurrent", _multiply(h, self.recurrent, drops))
        if is_fused(function):
            return [self.round("hidden", function(x))]
        x = x if h is None else self.round("sum", x)
        return [self.round("hidden", self.activate(function, x))]


class _Lstm(_Step):
    """c' = f c + i g and h' = o tanh(c'), with the gates i, f, o and the candidate g."""

    def __call__(self, x: Tensor, states: list[Any], drops: Sequence[Tensor]) -> list[Tensor]:
        h, c = states
        squash, gate = self.cell.activation, self.cell.recurrent_activation
        if h is not None:
            product = self.round("recurrent", _multiply(h, self.recurrent, drops))
            x = self.round("gates", x + product)
        i, f, g, o = ops.split(x, 4, axis=-1)
        if c is None:
            # Nothing reads f here, and a SPLIT of which a part is not read is left in float.
            n = self.cell.units
            i, g, o = x[:, :n], x[:, 2 * n : 3 * n], x[:, 3 * n :]
        new = self.activate(gate, i) * self.activate(squash, g)
        if c is not None:
            kept = self.round("kept", self.activate(gate, f) * c)
            new = kept + self.round("written", new)
        c = self.round("cell", new)
        return [self.round("hidden", self.activate(gate, o) * self.activate(squash, c)), c]


class _Gru(_Step):
    """h' = h + u (g - h), with the candidate g and the update gate u = 1 - z.

    Keras has z h + (1 - z) g. As 1 - sigmoid(a) = sigmoid(-a), the columns of z change their sign;
    then u = 0 keeps the state exactly, which an int8 z, 255/256 at most, would not.
    """

    def __init__(self, q: Any, cell: Any, rounding: Round) -> None:
        super().__init__(q, cell, rounding)
        dtype = keras.backend.standardize_dtype(self.kernel.dtype)
        signs = np.repeat(np.array([-1.0, 1.0], dtype), [cell.units, 2 * cell.units])
        self.kernel, self.recurrent = self.kernel * signs, self.recurrent * signs
        self.recurrent_bias = None
        if cell.use_bias:
            biases = self.bias * signs
            self.bias = biases[0] if cell.reset_after else biases
            self.recurrent_bias = biases[1:] if cell.reset_after else None

    def __call__(self, x: Tensor, states: list[Any], drops: Sequence[Tensor]) -> list[Tensor]:
        (h,), units = states, self.cell.units
        after = self.cell.reset_after
        x, x_candidate = ops.split(x, [2 * units], axis=-1)
        recurrent = self._product(h, drops)
        candidate = None
        if recurrent is not None:
            if after:
                recurrent, candidate = ops.split(recurrent, [2 * units], axis=-1)
            x = self.round("gates", x + recurrent)
        gate = self.cell.recurrent_activation
        if candidate is None and h is None:  # nothing reads the reset gate: as in `_Lstm`
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
        step = self.round("update", update * self.round("difference", new - h))
        return [self.round("hidden", h + step)]

    def _product(self, h: Tensor | None, drops: Sequence[Tensor]) -> Tensor | None:
        """What the gates, and the candidate if it is reset after, get from the state."""
        if h is None:
            bias = self.recurrent_bias
            return None if bias is None else self.round("recurrent", bias)
        if not self.cell.reset_after:
            kernel = self.recurrent[:, : 2 * self.cell.units]
            return self.round("recurrent", _multiply(h, kernel, drops[:2]))
        product = _multiply(h, self.recurrent, drops)
        return self.round("recurrent", _add_bias(product, self.recurrent_bias, h, self.recurrent))


_STEPS: dict[type, type[_Step]] = {
    layers.GRU: _Gru,
    layers.LSTM: _Lstm,
    layers.SimpleRNN: _Simple,
}
_SQUASHING = (activations.sigmoid, activations.tanh)
