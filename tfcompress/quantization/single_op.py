"""Whether a layer or operation without a rule is one int8 op in the file, by what it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

__all__ = ["Traced", "trace"]


@dataclass(frozen=True)
class Traced:
    """What a call runs in TensorFlow.

    Attributes:
        ops: Types of the ops that compute floats from its inputs, in order. An op that only moves
            values about is none of them, nor is a bias or a ReLU that TFLite computes within the op
            before.
        gives_floats: Whether an output is a float tensor. Keras may believe so where none is.
    """

    ops: tuple[str, ...]
    gives_floats: bool

    @property
    def must_stay_float(self) -> bool:
        """Return whether the converter fails when it makes one of the ops int8."""
        return "OneHot" in self.ops

    def why_float(self) -> str | None:
        """Return why the call is computed in float in the file, or None if it is not."""
        if {"Mean", "Rsqrt"}.issubset(self.ops):
            return "its sums of squares need float"
        unknown = [op for op in self.ops if op not in _INT8]
        if unknown:
            return f"the converter has no int8 form of {unknown[0]}"
        if any(op not in _FIXED for op in self.ops[:-1]):
            return f"no range is known between its ops: {', '.join(dict.fromkeys(self.ops))}"
        return None


def trace(function: Callable[..., Any], args: Any, kwargs: Any) -> Traced:
    """Trace a call on symbolic tensors.

    >>> x = keras.KerasTensor((None, 8), "float32")
    >>> trace(keras.ops.tanh, (x,), {}).why_float()
    >>> trace(lambda x: keras.ops.sin(x) * x, (x,), {}).why_float()
    'the converter has no int8 form of Sin'

    Args:
        function: A layer, an operation, or any function of tensors.
        args: Positional arguments. Symbolic tensors among them are inputs.
        kwargs: Keyword arguments, in the same form.

    Returns:
        The ops that it runs.
    """
    flat = keras.tree.flatten((args, kwargs))
    inputs = [x for x in flat if isinstance(x, keras.KerasTensor)]

    def run(*tensors: Any) -> Any:
        given = iter(tensors)
        filled_args, filled_kwargs = keras.tree.map_structure(
            lambda x: next(given) if isinstance(x, keras.KerasTensor) else x, (args, kwargs)
        )
        with keras.StatelessScope():  # Seeds and statistics stay as they are.
            return function(*filled_args, **filled_kwargs)

    specs = [tf.TensorSpec(x.shape, x.dtype) for x in inputs]
    graph = tf.function(run, autograph=False).get_concrete_function(*specs).graph
    floats = any(tensor.dtype.is_floating for tensor in graph.outputs)
    return Traced(tuple(_computing(graph, graph.inputs[: len(specs)])), floats)


def _computing(graph: Any, inputs: list[Any]) -> list[str]:
    found: list[str] = []
    live = {tensor.ref() for tensor in inputs}
    fusing: dict[Any, set[str]] = {}  # Output of an op -> what TFLite computes within that op.
    for op in graph.get_operations():
        given = [tensor.ref() for tensor in op.inputs if tensor.ref() in live]
        if not given:
            continue
        outputs = [tensor.ref() for tensor in op.outputs]
        live.update(outputs)
        fused = fusing.get(given[0], set()) if len(given) == 1 else set()
        if op.type in fused or op.type in ("Identity", "IdentityN"):
            fusing.update(dict.fromkeys(outputs, fused))
        elif _computes(op, live):
            found.append("Mul" if _is_square(op) else op.type)
            fusing.update(dict.fromkeys(outputs, _FUSED.get(op.type, set())))
    return found


def _computes(op: Any, live: set[Any]) -> bool:
    """Return whether an op computes floats, or makes them of integers, as a lookup does."""
    if not any(tensor.dtype.is_floating for tensor in op.outputs):
        return False
    given = [tensor for tensor in op.inputs if tensor.ref() in live]
    return op.type not in _MOVES or not any(tensor.dtype.is_floating for tensor in given)


def _is_square(op: Any) -> bool:
    """Return whether an op is a product with itself: `export`, or the converter, makes it one."""
    if op.type == "Pow":
        exponent = tf.get_static_value(op.inputs[1])
        return exponent is not None and bool((exponent == 2).all())
    return bool(op.type == "Square")


_RELU = {"Relu", "Relu6"}
_PRODUCTS = {"BatchMatMulV2", "Conv2D", "DepthwiseConv2dNative", "MatMul"}
_FUSED = {op: {"AddV2", "BiasAdd", "Mul", "RealDiv", "Sub", *_RELU} for op in _PRODUCTS}
_FUSED |= dict.fromkeys(("AddV2", "Mul", "Sub"), _RELU)
_FIXED = {"LogSoftmax", "Sigmoid", "Softmax", "Tanh"}  # TFLite prescribes their ranges.
_MOVES = {
    "BroadcastTo",
    "ConcatV2",
    "ExpandDims",
    "GatherV2",
    "MirrorPad",
    "Pack",
    "Pad",
    "PadV2",
    "PreventGradient",
    "Reshape",
    "ReverseV2",
    "Slice",
    "SpaceToBatchND",
    "BatchToSpaceND",
    "Split",
    "SplitV",
    "Squeeze",
    "StopGradient",
    "StridedSlice",
    "Tile",
    "TopKV2",
    "Transpose",
    "Unpack",
}
_INT8 = {
    *_PRODUCTS,
    *_FIXED,
    "Abs",
    "AddV2",
    "AvgPool",
    "BiasAdd",
    "Exp",
    "LeakyRelu",
    "Max",
    "MaxPool",
    "Maximum",
    "Mean",
    "Min",
    "Minimum",
    "Mul",
    "Neg",  # `export` makes it a product.
    "RealDiv",
    "Reciprocal",
    "Relu",
    "Relu6",
    "ResizeBilinear",
    "ResizeNearestNeighbor",
    "Rsqrt",
    "SelectV2",
    "Sqrt",
    "Sub",
    "Sum",
}
