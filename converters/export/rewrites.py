"""Changes to a SavedModel that the TensorFlow converter needs, and Keras and TensorFlow do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .fake_quants import fuse_with_ranges

_KEY = "serving_default"


def rewrite(folder: Path, input_names: Mapping[str, str]) -> None:
    """Rename the inputs of a SavedModel, and rewrite ops.

    What guards `argmax` against negative zeros is dropped, and so is what a FakeQuant does, too.
    A `roll` becomes slices that are joined in another order.

    Args:
        folder: The folder of the SavedModel.
        input_names: Name of each input as it was traced -> name that it gets.
    """
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    file = folder / "saved_model.pb"
    saved = SavedModel.FromString(file.read_bytes())
    for graph in saved.meta_graphs:
        inputs = graph.signature_def[_KEY].inputs
        for traced, name in input_names.items():
            if traced != name:
                inputs[name].CopyFrom(inputs.pop(traced))
        drop_zero_guards(graph.graph_def.node)
        for function in graph.graph_def.library.function:
            drop_zero_guards(function.node_def)
            write_out_rolls(function.node_def)
            fuse_with_ranges(
                function.node_def, [ret.split(":")[0] for ret in function.ret.values()]
            )
    file.write_bytes(saved.SerializeToString())


def drop_zero_guards(nodes: Iterable[Any]) -> int:
    """Let `argmax` and `argmin` read their argument itself.

    Keras replaces -0.0 by the smallest normal number below zero first, after a test of the sign bit
    that TFLite has no op for. Without it, the first of 0.0 and -0.0 counts, which are equal.

    Args:
        nodes: The `NodeDef`s of a graph or function, which are changed.

    Returns:
        The number of guards that were dropped.
    """
    from tensorflow import make_ndarray

    by_name = {node.name: node for node in nodes}

    def inputs(tensor: str, op: str) -> list[str]:
        """Return the inputs of the op that makes a tensor; none if it is another op."""
        node = by_name.get(tensor.split(":")[0])
        return list(node.input) if node is not None and node.op == op else []

    def is_guard(node: Any) -> bool:
        """Return whether it is `where((x == 0) & signbit(x), -tiny, x)`."""
        condition, value, kept = node.input[:3]  # what else there is orders ops
        equal, sign = inputs(condition, "LogicalAnd") or ("", "")
        for op in ("Less", "BitwiseAnd", "Bitcast"):
            sign = next(iter(inputs(sign, op)), "")
        constant = by_name.get(value.split(":")[0])
        return bool(
            inputs(equal, "Equal")[:1] == [kept] == [sign]
            and constant is not None
            and constant.op == "Const"
            and np.all(make_ndarray(constant.attr["value"].tensor) == -np.finfo("float32").tiny)
        )

    guards = [node for node in by_name.values() if node.op == "SelectV2" and is_guard(node)]
    for node in guards:
        node.op = "Identity"
        del node.input[:2]
    return len(guards)


def write_out_rolls(nodes: Any) -> int:
    """Join two slices where a tensor is rolled along an axis: TFLite has no op for it.

    Args:
        nodes: The `NodeDef`s of a function, which are changed.

    Returns:
        The number of rolls that were written out. One whose shift, axis or size is not known stays.
    """
    from tensorflow import make_ndarray

    constants = {node.name: node for node in nodes if node.op == "Const"}
    rolls = 0
    for node in [node for node in nodes if node.op == "Roll"]:
        given = [constants.get(tensor.split(":")[0]) for tensor in node.input[1:3]]
        sizes = [dim.size for dim in node.attr["_output_shapes"].list.shape[0].dim]
        if not all(given) or not sizes:
            continue
        shifts, axes = (np.ravel(make_ndarray(one.attr["value"].tensor)) for one in given if one)
        if any(sizes[axis] < 0 for axis in axes):
            continue
        source = node.input[0]
        for step, (shift, axis) in enumerate(zip(shifts.tolist(), axes.tolist(), strict=True)):
            if shift % sizes[axis]:
                place = axis % len(sizes)
                source = _rolled(nodes, node, step, source, shift % sizes[axis], place)
        node.op = "Identity"
        for name in ("Tshift", "Taxis"):
            del node.attr[name]
        del node.input[:]
        node.input.append(source)
        rolls += 1
    return rolls


def _rolled(nodes: Any, roll: Any, step: int, source: str, shift: int, axis: int) -> str:
    """Add the nodes that move the last `shift` places of an axis to its start."""
    from tensorflow import dtypes, make_tensor_proto

    def add(op: str, name: str, inputs: list[str], **attributes: int) -> str:
        node = nodes.add(op=op, name=f"{roll.name}_{step}_{name}", input=inputs)
        for key, value in attributes.items():
            node.attr[key].i = value
        node.attr["T"].type = roll.attr["T"].type
        return f"{node.name}:output:0"

    def constant(name: str, value: Any) -> str:
        node = nodes.add(op="Const", name=f"{roll.name}_{step}_{name}")
        node.attr["dtype"].type = dtypes.int32.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(make_tensor_proto(value, "int32"))
        return f"{node.name}:output:0"

    def part(name: str, begin: int, end: int, open_begin: int, open_end: int) -> str:
        before, whole = [0] * axis, (1 << axis) - 1
        bounds = [
            constant(f"{name}_begin", [*before, begin]),
            constant(f"{name}_end", [*before, end]),
            constant(f"{name}_strides", [1] * (axis + 1)),
        ]
        masks = {"begin_mask": whole | open_begin << axis, "end_mask": whole | open_end << axis}
        made = add("StridedSlice", name, [source, *bounds], **masks)
        nodes[-1].attr["Index"].type = dtypes.int32.as_datatype_enum
        return made

    parts = [part("last", -shift, 0, 0, 1), part("first", 0, -shift, 1, 0)]
    joined = add("ConcatV2", "join", [*parts, constant("axis", axis)], N=2)
    nodes[-1].attr["Tidx"].type = dtypes.int32.as_datatype_enum
    return joined
