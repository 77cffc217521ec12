"""Recurrent layers as int8 ops: unrolled step by step, with all inputs projected at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from tfcompress.model.layers import rule_class
from tfcompress.quantization.executor import Executor
from tfcompress.quantization.ops.activations import is_fused

from .cells import CELLS, SQUASHING, Round, Tensor, dropout_masks

__all__ = [
    "applies",
    "bidirectional",
    "bidirectional_output_step",
    "bidirectional_tensors",
    "compute",
    "output_step",
    "tensors",
]


def applies(layer: Any) -> str | None:
    """Return why `compute` or `bidirectional` does not support the layer, or None if it does."""
    if rule_class(layer) is layers.Bidirectional:
        reasons = [_unknown(part) for part in (layer.forward_layer, layer.backward_layer)]
        return next((reason for reason in reasons if reason), _free(layer))
    return _unknown(layer) or _free(layer)


def _unknown(layer: Any) -> str | None:
    kind = rule_class(layer)
    if kind not in CELLS:
        return f"the cell of a {type(layer).__name__} is not known to int8"
    if layer.stateful:
        return "it keeps its state from batch to batch"
    for function in _functions(layer.cell):
        fuses = is_fused(function) and kind is layers.SimpleRNN
        if function not in SQUASHING and not fuses:
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
    """Return the names of the tensors between the ops of a step. All steps share a range."""
    return [*_names(layer), "hidden"]


def bidirectional_tensors(layer: Any, shape: Any) -> Sequence[str]:
    """Return the names of both directions' inner tensors. They share the range of the output."""
    names = [f"forward_{name}" for name in _names(layer.forward_layer)]
    names += [f"backward_{name}" for name in _names(layer.backward_layer)]
    merged = {"sum": ["merged"], "mul": ["merged"], "ave": ["merged", "halved"]}
    return [*names, "hidden", *merged.get(layer.merge_mode, [])]


def _names(layer: Any) -> Sequence[str]:
    kind = rule_class(layer)
    if kind is layers.LSTM:
        return ("projected", "recurrent", "gates", "kept", "written", "cell")
    if kind is layers.SimpleRNN:
        return ("projected", "recurrent") + (() if is_fused(layer.activation) else ("sum",))
    names = ("projected", "recurrent", "gates", "reset", "candidate", "difference", "update")
    return names if layer.reset_after else (*names, "recurrent_candidate")


def compute(
    q: Executor,
    layer: Any,
    sequences: Tensor,
    initial_state: Any = None,
    mask: Any = None,
    training: bool | None = None,
) -> Any:
    """Compute an LSTM, GRU or SimpleRNN, with every tensor of every step in int8.

    Steps share their ranges, which follow the values that all steps of a batch reach together.

    Args:
        q: Executor of the call.
        layer: Layer to compute.
        sequences: Float tensor (batch, steps, features), the number of steps known.
        initial_state: Tensor (batch, units), or a list of them, one per state. Defaults to zeros.
        mask: Boolean tensor (batch, steps): which steps count. Defaults to all.
        training: Whether to apply dropout. Defaults to False.

    Returns:
        What the layer returns.

    Reference:
        Hochreiter & Schmidhuber 1997; Cho et al. 2014, https://arxiv.org/abs/1406.1078
    """
    seen = _Seen(q)
    step, *_ = keras.tree.flatten(q.input_step("initial_state"))
    steps, states = _unroll(q, layer, sequences, initial_state, step, mask, training, seen)
    seen.observe()
    y = ops.stack(steps, axis=1) if layer.return_sequences else steps[-1]
    return (y, *states) if layer.return_state else y


def bidirectional(
    q: Executor,
    layer: Any,
    sequences: Tensor,
    initial_state: Any = None,
    mask: Any = None,
    training: bool | None = None,
) -> Any:
    """Compute a Bidirectional layer. Both directions share an output range, to concatenate.

    Args:
        q: Executor of the call.
        layer: Layer to compute.
        sequences: Float tensor (batch, steps, features), the number of steps known.
        initial_state: List of tensors (batch, units), those of the forward layer first. Defaults to
            zeros.
        mask: Boolean tensor (batch, steps): which steps count. Defaults to all.
        training: Whether to apply dropout. Defaults to False.

    Returns:
        What the layer returns.
    """
    seen = _Seen(q)
    half = 0 if initial_state is None else len(initial_state) // 2
    halves = (slice(None, half), slice(half, None))
    given = q.input_step("initial_state")
    parts = []
    for name, where in zip(("forward", "backward"), halves, strict=True):
        state = initial_state and initial_state[where]
        step = given and given[where][0]
        part = getattr(layer, f"{name}_layer")
        parts.append(_unroll(q, part, sequences, state, step, mask, training, seen, f"{name}_"))
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


def output_step(q: Executor, layer: Any, index: int) -> Any:
    """Return the distance between neighbouring values of the output, or of a state behind it."""
    return q.step("cell" if index == 2 else "hidden")


def bidirectional_output_step(q: Executor, layer: Any, index: int) -> Any:
    """Return the distance between neighbouring values of the merged output; None for states."""
    merged = {"sum": "merged", "mul": "merged", "ave": "halved"}
    return q.step(merged.get(layer.merge_mode, "hidden")) if index == 0 else None


def _merge(q: Executor, mode: str | None, y: Tensor, z: Tensor) -> tuple[Tensor, ...]:
    if mode is None:
        return y, z
    if mode == "concat":
        return (ops.concatenate([y, z], axis=-1),)
    merged = q.fake_quant("merged", y * z if mode == "mul" else y + z)
    return (q.fake_quant("halved", merged * 0.5) if mode == "ave" else merged,)


class _Seen:
    """Collects the values of each inner tensor over all steps."""

    def __init__(self, q: Executor) -> None:
        self.q = q
        self.tensors: dict[str, list[Tensor]] = {}

    def round(self, name: str, x: Tensor) -> Tensor:
        """Round to int8 in the range that the name has so far."""
        self.tensors.setdefault(name, []).append(x)
        return self.q.fake_quant(name, x, observe=False)

    def observe(self) -> None:
        """Let the ranges follow the values of all steps at once."""
        for name, steps in self.tensors.items():
            self.q.observe(name, ops.concatenate([ops.reshape(x, [-1]) for x in steps]))


def _unroll(
    q: Executor,
    layer: Any,
    x: Tensor,
    initial_state: Any,
    initial_step: Any,
    mask: Any,
    training: bool | None,
    seen: _Seen,
    prefix: str = "",
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the outputs of all steps, in the order of computation, and the last states."""
    cell = layer.cell
    rounding: Round = lambda name, x: seen.round(prefix * (name != "hidden") + name, x)  # noqa: E731
    compute, states = CELLS[rule_class(layer)](q, cell, rounding), [None] * len(layer.state_size)
    hidden_step = q.step("hidden")
    state_step = hidden_step
    if initial_state is not None:
        states = keras.tree.flatten(initial_state)
        state_step = initial_step
        if mask is not None:
            # The tensors that a mask chooses from share a range.
            states = [rounding(n, s) for n, s in zip(("hidden", "cell"), states, strict=False)]
            state_step = hidden_step
    drops = dropout_masks(cell, x[:, 0], cell.dropout, training)
    inputs = rounding("projected", compute.project(x, q.input_step("sequences"), drops))
    drops = dropout_masks(cell, inputs[:, 0, : cell.units], cell.recurrent_dropout, training)
    count = x.shape[1]
    xs = ops.unstack(inputs, axis=1)
    masks: list[Any] = [None] * count
    if mask is not None:
        masks = [ops.expand_dims(m, -1) for m in ops.unstack(ops.cast(mask, "bool"), axis=1)]
    outputs: list[Tensor] = []
    for index in reversed(range(count)) if layer.go_backwards else range(count):
        fresh, counts = compute(xs[index], states, drops, state_step), masks[index]
        output = fresh[0]
        if counts is not None:
            # Keras repeats the last output where a step is masked, at first zero.
            repeated = outputs[-1] if outputs and not layer.zero_output_for_mask else None
            output = _choose(counts, output, repeated)
            fresh = [_choose(counts, *pair) for pair in zip(fresh, states, strict=True)]
        states, state_step = fresh, hidden_step
        outputs.append(output)
    return outputs, states


def _choose(mask: Tensor, new: Tensor, old: Tensor | None) -> Tensor:
    return ops.where(mask, new, ops.zeros((), new.dtype) if old is None else old)
