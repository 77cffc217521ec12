"""Ops of a dynamic-range file that run slower than they do in float."""

from __future__ import annotations

import math

from tfcompress.converters.file.model import Inspection, Node

__all__ = ["depthwise_share", "slow_note"]

_WORTH_A_WORD = 0.02


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


def _types(found: Inspection, node: Node) -> tuple[str, str]:
    activations, weights = (found.tensors[place].dtype for place in node.inputs[:2])
    return activations, weights


def _macs(found: Inspection, node: Node) -> int:
    if node.op not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return 0
    weights = found.tensors[node.inputs[1]].shape
    positions = found.tensors[node.outputs[0]].shape[1:-1]
    return math.prod(size or 1 for size in (*positions, *weights))
