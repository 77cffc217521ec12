"""Ops that XNNPACK does not run, or runs faster, because of the types of their operands."""

from __future__ import annotations

import math

from tfcompress.converters.file.model import Inspection, Node

__all__ = ["attention_share", "depthwise_share", "slow_note", "speed_notes"]

_WORTH_A_WORD = 0.02
_MOST = 0.5


def depthwise_share(found: Inspection) -> float:
    """Return the share of the convolutions' and dense layers' work that runs outside XNNPACK.

    These are depthwise convolutions with int8 weights and float activations. XNNPACK has no kernel
    for them, so that TFLite's own computes them, which takes several times as long as in float32.

    Args:
        found: A file.

    Returns:
        Their share of the multiply-accumulates, 0 to 1.
    """
    total = slow = 0
    for node in found.nodes:
        macs = _macs(found, node)
        total += macs
        if node.op == "DEPTHWISE_CONV_2D" and _types(found, node) == ("float32", "int8"):
            slow += macs
    return slow / total if total else 0.0


def slow_note(found: Inspection, name: str) -> list[str]:
    """Say if enough of a file's work runs outside XNNPACK to make it slower than float32.

    Args:
        found: A file.
        name: What it will be called.

    Returns:
        One sentence or none.
    """
    share = depthwise_share(found)
    if share < _WORTH_A_WORD:
        return []
    return [
        f"{name}: {share:.0%} of the multiply-accumulates are depthwise convolutions with int8 "
        "weights and float activations, which XNNPACK does not run. TFLite's own kernel for them "
        "takes several times as long as float32, so that the whole file may be slower than "
        "float32: compare them with edge.benchmark. Int8() has no such ops."
    ]


def speed_notes(found: Inspection) -> tuple[str, ...]:
    """Say what the types of a file mean for its speed, where that is no matter of its size.

    Args:
        found: A file.

    Returns:
        Sentences; none for a file that is as fast as it is small.
    """
    ops = {(node.op, *_types(found, node)) for node in found.nodes if len(node.inputs) > 1}
    said = []
    if any(activations == "int16" for _, activations, _ in ops):
        said.append(
            "XNNPACK has no kernels for activations of 16 bits: on a CPU the file runs slower than "
            "in float32. It is meant for microcontrollers and NPUs."
        )
    if ("CONV_2D", "int8", "int4") in ops:
        said.append(
            "Convolutions of 4 bits are smaller and slower: XNNPACK does not run them, and "
            "TFLite's own kernels take several times as long as XNNPACK in int8."
        )
    if ("FULLY_CONNECTED", "int8", "int4") in ops:
        said.append(
            "Dense layers of 4 bits are smaller, and as fast as int8 or faster on XNNPACK. "
            "TensorFlow Lite Micro does not run them: keep them in int8 there."
        )
    share = attention_share(found)
    if share >= _MOST:
        said.append(
            f"{share:.0%} of the multiply-accumulates are attention in int8 and the dense layers "
            "around it, which is for accelerators: on a CPU, DynamicInt8() or WeightOnly() is "
            "faster, nearer to the model, and needs no samples. Compare them with edge.benchmark."
        )
    if any(_unpacks_int4(found, node) for node in found.nodes):
        said.append(
            "Weights of 4 bits are unpacked to float32 in each run, which is slower than a float32 "
            "file: take WeightOnly(activations='int8') for speed."
        )
    return tuple(said)


def attention_share(found: Inspection) -> float:
    """Return the share of a file's work that is attention in int8, and dense layers in int8.

    XNNPACK computes both more slowly than dense layers of float activations and int8 weights.

    Args:
        found: A file.

    Returns:
        Their share of the multiply-accumulates, 0 to 1; 0 for a file without attention in int8.
    """
    attends = any(
        node.op == "BATCH_MATMUL" and _types(found, node) == ("int8", "int8")
        for node in found.nodes
    ) and any(node.op == "SOFTMAX" for node in found.nodes)
    if not attends:
        return 0.0
    total = slow = 0
    for node in found.nodes:
        macs = _macs(found, node)
        total += macs
        if node.op in ("BATCH_MATMUL", "FULLY_CONNECTED") and _types(found, node)[0] == "int8":
            slow += macs
    return slow / total if total else 0.0


def _unpacks_int4(found: Inspection, node: Node) -> bool:
    return node.op == "DEQUANTIZE" and found.tensors[node.inputs[0]].dtype == "int4"


def _types(found: Inspection, node: Node) -> tuple[str, str]:
    activations, weights = (found.tensors[place].dtype for place in node.inputs[:2])
    return activations, weights


def _macs(found: Inspection, node: Node) -> int:
    """Return the multiply-accumulates of an op; a free size counts as 1, other ops as 0."""
    if node.op not in ("BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return 0
    left, right = (found.tensors[place].shape for place in node.inputs[:2])
    summed = {
        "BATCH_MATMUL": left[-2:-1] if node.options.get("adj_x") else left[-1:],
        "CONV_2D": right[1:],
        "DEPTHWISE_CONV_2D": right[1:-1],
        "FULLY_CONNECTED": right[-1:],
    }[node.op]
    return math.prod(size or 1 for size in (*summed, *found.tensors[node.outputs[0]].shape))
