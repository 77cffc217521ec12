"""The table for operations of `keras.ops` on symbolic tensors: what becomes of channels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from . import axes
from .call import Call, Rule, keep_all
from .units import FIXED, Ids, Labelled, Labels, fixed

__all__ = ["OPERATIONS"]


def _tensors(call: Call) -> list[Labels]:
    """Return the labels of all tensors that go in, and of lists of numbers, which are kept."""
    values = (*call.args, *call.kwargs.values())
    return [
        value if isinstance(value, Labelled) else fixed(np.shape(value))
        for value in values
        if isinstance(value, Labelled) or np.ndim(value)
    ]


def _elementwise(call: Call) -> Labels:
    return axes.broadcast(call.coupling, _tensors(call))


def _softmax(call: Call) -> Labels:
    axis = call.operation.axis
    over = [axis] if isinstance(axis, int) else axis
    if axis is None:
        return keep_all(call)[0]
    call.keep(tuple(call.x[i] for i in over), "a softmax sees all of them at once")
    return call.x


def _reduce(call: Call) -> Labels:
    axis = call.operation.axis
    over = [axis] if isinstance(axis, int) else axis
    what = f"{type(call.operation).__name__.lower()} ({call.path})"
    return axes.reduce(call.coupling, call.x, over, call.operation.keepdims, what)


def _reshape(call: Call) -> Labels:
    out = axes.reshape(call.coupling, call.x, call.shapes[0])
    for axis, (ids, size) in enumerate(zip(out, call.operation.newshape, strict=True)):
        if ids is not None and size not in (-1, None):
            call.coupling.size(call.operation, ("newshape", axis), ids)
    return out


def _transpose(call: Call) -> Labels:
    order = call.operation.axes
    return tuple(call.x[axis] for axis in (order or reversed(range(len(call.x)))))


def _moveaxis(call: Call) -> Labels:
    rank, moved = len(call.x), {}
    ends = [call.operation.source, call.operation.destination]
    sources, places = ([end] if isinstance(end, int) else end for end in ends)
    for source, place in zip(sources, places, strict=True):
        moved[place % rank] = source % rank
    order = [axis for axis in range(rank) if axis not in moved.values()]
    for place in sorted(moved):
        order.insert(place, moved[place])
    return tuple(call.x[axis] for axis in order)


def _repeat(call: Call) -> Labels | list[Labels]:
    """Each unit is there several times, as heads of keys that several heads of queries share."""
    repeats, axis = call.operation.repeats, call.operation.axis
    if axis is None or np.ndim(repeats):
        return keep_all(call)
    place = axis % len(call.x)
    ids = call.x[place]
    more = None if ids is None else np.repeat(ids, int(repeats))
    return (*call.x[:place], more, *call.x[place + 1 :])


def _same_elements(call: Call) -> Labels:
    return axes.reshape(call.coupling, call.x, call.shapes[0])


def _concatenate(call: Call) -> Labels:
    return axes.concatenate(call.coupling, call.first, call.operation.axis)


def _stack(call: Call) -> Labels:
    axis, rank = call.operation.axis, len(call.shapes[0])
    out = axes.broadcast(call.coupling, call.first)
    place = axis % rank
    return (*out[:place], *fixed(call.shapes[0][place : place + 1]), *out[place:])


def _split(call: Call) -> list[Labels]:
    axis = call.operation.axis % len(call.x)
    ids = call.x[axis]
    if ids is None:
        return [fixed(shape) for shape in call.shapes]
    ends = np.cumsum([shape[axis] for shape in call.shapes])[:-1]
    for entry, end in enumerate([*ends, len(ids)]):
        call.coupling.size(call.operation, ("indices_or_sections", entry), ids[:end])
    return [(*call.x[:axis], part, *call.x[axis + 1 :]) for part in np.split(ids, ends)]


def _get_item(call: Call) -> Labels | list[Labels]:
    key = call.args[1] if len(call.args) > 1 else call.kwargs["key"]
    parts = axes.index_parts(key, len(call.x))
    if not all(part is None or isinstance(part, int | slice) for part in parts):
        return keep_all(call)
    out: list[Ids | None] = []
    along = iter(enumerate(call.x))
    for part in parts:
        if part is None:
            out.append(np.full(1, FIXED))
            continue
        axis, ids = next(along)
        if isinstance(part, int):
            call.keep((ids,), "one of them is taken out")
            continue
        if part.step not in (None, 1):
            call.keep((ids,), "it is sliced with a step")
        elif part != slice(None) and ids is not None:
            call.coupling.slices[call.key, axis] = ids
        size = call.shapes[0][len(out)]
        out.append(axes.sliced(ids, part, size))
    return tuple(out)


def _matmul(call: Call) -> Labels | list[Labels]:
    a, b = call.tensors()
    rank = max(len(a), len(b))
    if min(len(a), len(b)) < 2:
        return keep_all(call)
    batch = "abcdefgh"[: rank - 2]
    left, right = batch[rank - len(a) :] + "xy", batch[rank - len(b) :] + "yz"
    out = axes.einsum(call.coupling, f"{left},{right}->{batch}xz", [a, b])
    return keep_all(call) if out is None else out


def _einsum(call: Call) -> Labels | list[Labels]:
    out = axes.einsum(call.coupling, call.operation.subscripts, call.tensors())
    return keep_all(call) if out is None else out


def _pad(call: Call) -> Labels | list[Labels]:
    width = np.broadcast_to(np.asarray(call.operation.pad_width), (len(call.x), 2))
    if call.operation.mode != "constant":
        return keep_all(call)
    return tuple(
        ids if ids is None else np.pad(ids, before_after)
        for ids, before_after in zip(call.x, width.tolist(), strict=True)
    )


_ELEMENTWISE = (
    *("Abs", "Absolute", "Arctan", "Cast", "Ceil", "Celu", "Clip", "Cos", "Elu", "Erf", "Exp"),
    *("Expm1", "Floor", "Gelu", "HardShrink", "HardSigmoid", "HardSilu", "HardTanh", "Identity"),
    *("LeakyRelu", "Log", "Log1p", "LogSigmoid", "Negative", "Reciprocal", "Relu", "Relu6"),
    *("Round", "Rsqrt", "Selu", "Sigmoid", "Sign", "Silu", "Sin", "SoftShrink", "Softplus"),
    *("Softsign", "Sqrt", "Square", "Squareplus", "Tanh", "TanhShrink", "Threshold"),
    *("Add", "Divide", "DivideNoNan", "Maximum", "Minimum", "Multiply", "Power", "Subtract"),
    *("TrueDivide", "Equal", "Greater", "GreaterEqual", "Less", "LessEqual", "NotEqual", "Where"),
    *("LogicalAnd", "LogicalNot", "LogicalOr", "OnesLike", "ZerosLike"),
)
_REDUCE = ("All", "Any", "Argmax", "Argmin", "Max", "Mean", "Min", "Prod", "Std", "Sum", "Var")

OPERATIONS: Mapping[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_REDUCE, _reduce),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    "Concatenate": _concatenate,
    "Einsum": _einsum,
    "ExpandDims": _same_elements,
    "GetItem": _get_item,
    "Matmul": _matmul,
    "Moveaxis": _moveaxis,
    "Pad": _pad,
    "Repeat": _repeat,
    "Reshape": _reshape,
    "Split": _split,
    "Squeeze": _same_elements,
    "Stack": _stack,
    "Transpose": _transpose,
}
"""Rules by class name. All inputs and outputs of an operation that is not here are kept."""
