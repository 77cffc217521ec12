"""Would XNNPACK run a float graph with sparse kernels, and would that be right?

When a graph has weights behind DENSIFY, XNNPACK on Arm (and on x86 without AVX) looks for parts
that it can run channels first, with 1x1 convolutions that skip zeros. Such a part begins at a stem
and ends at a global average pooling. Where it meets another op on the way, XNNPACK does not always
notice: the results are then wrong, without a word.

The rules are those of `xnn_subgraph_rewrite_for_nchw` in
https://github.com/google/XNNPACK/blob/master/src/subgraph.c, seen at work on an emulated aarch64.
What is not known to be right counts as unsafe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .inspect import Inspection

Kind = Literal["safe", "sparse kernels", "unsafe"]

ENOUGH_ZEROS = 2 / 3
_UNARY = frozenset({"ABS", "ELU", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "NEG", "RELU", "RELU6",
                    "RELU_N1_TO_1", "SQUARE", "TANH"})  # fmt: skip
_ENDS = frozenset({"MEAN", "SUM", "DEPTH_TO_SPACE"})
_UNPACKING = frozenset({"DENSIFY", "DEQUANTIZE"})
_FUSED = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")
_PAD = "ZeroPadding2D({}) before it and padding='valid', on images of even height and width"


@dataclass(frozen=True)
class Finding:
    """One rule that a graph does not keep.

    Attributes:
        op: The op that breaks it; "" for the graph as a whole.
        layer: Path of the Keras layer that it comes from; None if its name does not tell.
        rule: What the sparse kernels want.
        change: What to write in Keras instead.
    """

    op: str
    layer: str | None
    rule: str
    change: str

    def __str__(self) -> str:
        where = f"{self.op} of layer '{self.layer}': " if self.layer else self.op and f"{self.op}: "
        return f"{where}{self.rule}. {self.change}."


@dataclass(frozen=True)
class GraphForm:
    """What becomes of a graph on Arm when its weights lie behind DENSIFY.

    Attributes:
        kind: "safe": dense kernels, the same results. "sparse kernels": 1x1 convolutions skip the
            zeros. "unsafe": wrong results or a crash, or not known to be right.
        findings: What keeps the sparse kernels away; none when they engage.
    """

    kind: Kind
    findings: tuple[Finding, ...]


def graph_form(found: Inspection) -> GraphForm:
    """Tell what would happen on Arm if weights of a file were behind DENSIFY.

    Args:
        found: A file, its weights dense or sparse.

    Returns:
        The class of its graph, and which rules keep the sparse kernels from engaging.
    """
    forms = [_Graph(found, number).form() for number in range(len(found.subgraphs))]
    kinds = [form.kind for form in forms]
    kind: Kind = "safe"
    if "unsafe" in kinds:
        kind = "unsafe"
    elif "sparse kernels" in kinds:
        kind = "sparse kernels"
    return GraphForm(kind, tuple(finding for form in forms for finding in form.findings))


class _Graph:
    """One subgraph, and who makes and who takes each tensor."""

    def __init__(self, found: Inspection, number: int):
        self.found = found
        self.border = found.subgraphs[number]
        self.nodes = [node for node in found.nodes if node.subgraph == number]

    # To come: for now everything that could begin and end a part is unsafe.
    def form(self) -> GraphForm:
        ends = any(node.op in _ENDS for node in self.nodes)
        stem = any(
            node.op == "CONV_2D"
            and self.found.tensors[node.inputs[1]].shape[1:] == (3, 3, 3)
            and node.options["stride_w"] == node.options["stride_h"] == 2
            for node in self.nodes
        )
        return GraphForm("unsafe" if ends and stem else "safe", ())
