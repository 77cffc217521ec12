"""Run a file and its model side by side, and compare what each layer gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfcompress.converters.equalization.formula import unevenness
from tfcompress.converters.export.layer_names import layer_at
from tfcompress.converters.file.model import Inspection, Node, Tensor
from tfcompress.converters.file.names import scope_names
from tfcompress.edge.arrays import load_arrays, save_arrays
from tfcompress.edge.errors import raised_by
from tfcompress.edge.system.child import ChildFailure
from tfcompress.edge.system.scratch import scratch_folder
from tfcompress.edge.targets.local import LOCAL
from tfcompress.model.graph import functional, is_graph, nodes
from tfcompress.model.samples import Array
from tfcompress.model.signature import Signature
from tfcompress.model.tensor_values import tensor_values

from .layer_error import LayerError, Sums

__all__ = ["layer_errors"]

_CLEAR = 10.0
"""An op whose names lead to no layer must agree with one by so many dB to be taken for it."""

_MOVING = {"DEQUANTIZE", "QUANTIZE", "RESHAPE"}


def layer_errors(
    model: keras.Model,
    call: Signature,
    found: Inspection,
    batches: Sequence[tuple[Mapping[str, Array], Mapping[str, Array]]],
) -> tuple[LayerError, ...]:
    """Return the error of each layer whose output is in a file, the worst first.

    The names of a tensor say which layers it comes from: a fused op has several. Which of their
    outputs it is, the values say.

    Args:
        model: A functional or sequential model.
        call: Its inputs.
        found: The file.
        batches: For each batch the samples by input name, and the same in the file's own types.

    Returns:
        A `LayerError` for each layer that was found.
    """
    ops = [node for node in found.nodes if node.subgraph == 0 and _has_output(node, found)]
    paths = dict(_layer_tensors(model, ""))
    wanted = [_candidates(node, found, model, paths) for node in ops]
    sums: list[dict[int, Sums]] = [{} for _ in ops]
    places = [node.outputs[0] for node in ops]
    compared = zip(batches, _tensors(found, places, batches), strict=True)
    for number, ((samples, _), actual) in enumerate(compared):
        expected = _values(model, call, samples, set(paths))
        for op, (place, array) in enumerate(zip(places, actual, strict=True)):
            real = _real(array, found.tensors[place])
            for key in wanted[op] if wanted[op] or number else paths:
                value = _as_shaped(expected[key], real.shape)
                if value is not None:
                    sums[op].setdefault(key, Sums()).add(value, real)
            if number == 0:
                wanted[op] = _chosen(sums[op], list(paths), bool(wanted[op]))
                sums[op] = {key: sums[op][key] for key in wanted[op]}
    return _worst_first(ops, sums, paths, found)


def _has_output(node: Node, found: Inspection) -> bool:
    tensor = found.tensors[node.outputs[0]] if node.outputs else None
    if tensor is None or node.op in _MOVING:
        return False
    return tensor.dtype in ("float32", "float16") or len(tensor.scales) == 1


def _layer_tensors(model: keras.Model, prefix: str) -> Iterator[tuple[int, str]]:
    """Yield the key of each tensor that a layer gives, and the layer's path."""
    for node in nodes(model):
        if node.call.is_input:
            continue
        path = f"{prefix}{node.name}"
        if is_graph(node.operation):
            yield from _layer_tensors(node.operation, f"{path}/")
        else:
            yield node.outputs[0], path


def _candidates(
    node: Node, found: Inspection, model: keras.Model, paths: Mapping[int, str]
) -> list[int]:
    """Return the keys of the tensors of all layers that the names of an op's output lead to."""
    own = found.tensors[node.outputs[0]].name.split(";")
    layers = {layer_at(model, part) for part in own} - {None}
    if not layers:
        layers = {layer_at(model, name) for name in scope_names(node, found)} - {None}
    # A layer inside another, such as a projection of attention, stands for the outer one.
    return [
        key
        for key, path in paths.items()
        if any(f"{layer}/".startswith(f"{path}/") for layer in layers)
    ]


def _chosen(sums: Mapping[int, Sums], order: list[int], named: bool) -> list[int]:
    """Return the key of the tensor of Keras that a tensor of the file is, if there is one."""
    if not sums:
        return []
    best = max(sums, key=lambda key: sums[key].snr_db())
    if sums[best].snr_db() >= _CLEAR:
        return [best]
    # The last layer of a fused op gives its output.
    return [max(sums, key=order.index)] if named else []


def _tensors(
    found: Inspection,
    places: list[int],
    batches: Sequence[tuple[Mapping[str, Array], Mapping[str, Array]]],
) -> Iterator[list[Array]]:
    """Yield the values of tensors of a file on each batch, from a child process."""
    with scratch_folder() as folder, LOCAL.session([found.path]) as session:
        inputs, out = folder / "inputs.npz", folder / "tensors.npz"
        for _, arrays in batches:
            save_arrays(inputs, list(arrays.values()))
            try:
                session.child.request(
                    "tensors",
                    None,
                    path=session.paths[0],
                    inputs=str(inputs),
                    names=list(arrays),
                    places=places,
                    out=str(out),
                )
            except ChildFailure as failure:
                raise raised_by(failure, found.path) from None
            yield load_arrays(out)


def _values(
    model: keras.Model, call: Signature, samples: Mapping[str, Array], wanted: set[int]
) -> dict[int, Array]:
    names = [spec.name for spec in call.inputs]
    rows = [keras.ops.convert_to_tensor(samples[name]) for name in names]
    rows = [
        keras.ops.cast(row, tensor.dtype)
        for row, tensor in zip(rows, functional(model).inputs, strict=True)
    ]
    with keras.StatelessScope():
        return {
            key: np.asarray(keras.ops.convert_to_numpy(value), np.float32)
            for key, value in tensor_values(model, rows)
            if key in wanted
        }


def _as_shaped(value: Array, shape: tuple[int, ...]) -> Array | None:
    """Return a value of Keras in the shape of a tensor of the file; None if it is another."""
    if value.shape == shape:
        return value
    same = value.size == np.prod(shape) and value.shape[-1:] == shape[-1:]
    return value.reshape(shape) if same else None


def _real(array: Array, tensor: Tensor) -> Array:
    if not tensor.quantized:
        return array.astype(np.float32)
    real: Array = (array.astype(np.float32) - tensor.zero_points[0]) * tensor.scales[0]
    return real


def _worst_first(
    ops: list[Node], sums: list[dict[int, Sums]], paths: Mapping[int, str], found: Inspection
) -> tuple[LayerError, ...]:
    makers = {place: node for node in found.nodes for place in node.outputs}
    ratios: dict[int, float] = {}
    errors: dict[int, LayerError] = {}
    for node, kept in zip(ops, sums, strict=True):
        for key, total in kept.items():
            ratio = ratios[node.outputs[0]] = total.snr_db()
            before = _before(node, makers, ratios, found)
            errors[key] = LayerError(  # of several ops of a layer, the last
                layer=paths[key],
                op=node.op,
                snr_db=ratio,
                channels_db=total.channels_db(),
                lost_db=None if before is None else max(before - ratio, 0.0),
                uneven=unevenness(total.largest),
                dtype=found.tensors[node.outputs[0]].dtype,
                rescaled=total.rescaled,
            )
    return tuple(sorted(errors.values(), key=lambda error: error.snr_db))


def _before(
    node: Node, makers: Mapping[int, Node], ratios: Mapping[int, float], found: Inspection
) -> float | None:
    """Return the lowest known ratio among what an op reads; None if it reads inputs only."""
    known: list[float] = []
    todo: list[Any] = [place for place in node.inputs if place >= 0]
    seen: set[int] = set()
    while todo:
        place = todo.pop()
        if place in seen or found.tensors[place].constant:
            continue
        seen.add(place)
        if place in ratios:
            known.append(ratios[place])
        elif place in makers:
            todo += [other for other in makers[place].inputs if other >= 0]
    return min(known, default=None)
