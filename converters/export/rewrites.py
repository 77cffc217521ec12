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
