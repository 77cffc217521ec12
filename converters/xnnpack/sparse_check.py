"""Would XNNPACK run a float graph with sparse kernels, and would the results be right?

When weights are unpacked by DENSIFY, XNNPACK on Arm (and on x86 without AVX) looks for regions that
it can compute channels first, with 1x1 convolutions that skip zeros. A region begins at a stem and
ends at a global average pooling. If another op stands between the two, XNNPACK does not always
notice: the op then reads the channels in the wrong order, and the results are wrong without an
error.

The rules are those of `xnn_subgraph_rewrite_for_nchw` in
https://github.com/google/XNNPACK/blob/master/src/subgraph.c, checked on an emulated aarch64. A
graph that did not give right results there counts as unsafe.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tfcompress.converters.file.dataflow import Dataflow
from tfcompress.converters.file.model import Inspection, Node, Tensor
from tfcompress.converters.file.names import layer_in, scope_names
from tfcompress.converters.file.read import inspect
from tfcompress.edge.arguments import check_path
from tfcompress.edge.shown import Shown

from .rules import STEM, is_stem, obstacle

Kind = Literal["safe", "sparse kernels", "unsafe"]
_MEANING = {
    "safe": "on Arm dense kernels run, with the results of the dense file",
    "sparse kernels": "on Arm 1x1 convolutions skip zeros, once weights are stored sparse",
    "unsafe": "on Arm, weights stored sparse would give wrong results, or are not known to give "
    "right ones; store them dense, or convert to int8",
}

# Without any of these in the graph XNNPACK does not look for regions.
_ENDS = ("MEAN", "SUM", "DEPTH_TO_SPACE")
# Never part of a region, so no region continues after them.
_BARRIERS = ("MAX_POOL_2D",)
_CONVS = ("CONV_2D", "DEPTHWISE_CONV_2D")


@dataclass(frozen=True)
class RuleViolation:
    """A rule of the sparse kernels that a graph breaks.

    >>> print(RuleViolation("CONV_2D", "stem", "It has a stride of 1", "Give it a stride of 2"))
    CONV_2D of layer 'stem': It has a stride of 1. Give it a stride of 2.

    Attributes:
        op: Name of the op that breaks it; "" if the graph as a whole does.
        layer: Path of the Keras layer of the op; None if the file does not tell.
        rule: What the sparse kernels require.
        change: What to change in the Keras model.
    """

    op: str
    layer: str | None
    rule: str
    change: str

    def __str__(self) -> str:
        where = f"{self.op} of layer '{self.layer}': " if self.layer else self.op and f"{self.op}: "
        return f"{where}{self.rule}. {self.change}."


@dataclass(frozen=True)
class SparseCheck(Shown):
    """The answer of `check_sparse_kernels` about a graph whose weights are stored sparse.

    >>> import keras, tempfile
    >>> from tfcompress import converters
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = converters.convert(model, f"{folder}/tiny.tflite")
    ...     check = converters.check_sparse_kernels(file)
    >>> check.kind, len(check.violations) > 0
    ('safe', True)

    Attributes:
        kind: "safe": it runs dense kernels, with the results of the dense file. "sparse kernels":
            its 1x1 convolutions skip zeros. "unsafe": it gives wrong results or crashes, or right
            results are not known.
        violations: What keeps it from running sparse kernels, or makes them unsafe. Empty if they
            run.
    """

    kind: Kind
    violations: tuple[RuleViolation, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for `json.dumps`."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.kind}: {_MEANING[self.kind]}."]
        if self.violations:
            lines.append("What keeps the sparse kernels away:")
        return "\n".join([*lines, *(f"- {violation}" for violation in self.violations)])


def check_sparse_kernels(file: Inspection | str | os.PathLike[str]) -> SparseCheck:
    """Tell what XNNPACK on Arm does with a file when its weights are stored sparse.

    The answer depends on which weights are zero. Check the weights as they will be stored: rounding
    to int8 makes more zeros.

    >>> import keras, tempfile
    >>> from tfcompress import converters
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = converters.convert(model, f"{folder}/tiny.tflite")
    ...     converters.check_sparse_kernels(file).kind
    'safe'

    Args:
        file: The path of a .tflite file, or what `inspect` returned for it. Its weights may be
            dense or sparse: the answer is the same.

    Returns:
        The answer, and the rules that the graph breaks.

    Raises:
        ModelFileError: There is no readable .tflite file at the path.
    """
    if not isinstance(file, Inspection):
        check_path("file", file)
    found = file if isinstance(file, Inspection) else inspect(file)
    checks = [_Graph(found, number).check() for number in range(len(found.subgraphs))]
    kinds: tuple[Kind, ...] = ("unsafe", "sparse kernels", "safe")
    kind = next(kind for kind in kinds if any(check.kind == kind for check in checks))
    told = [checks[0], *(check for check in checks[1:] if check.kind == "unsafe")]
    return SparseCheck(kind, tuple(violation for check in told for violation in check.violations))


class _Graph:
    """A subgraph, and the region in it that XNNPACK would compute channels first."""

    def __init__(self, found: Inspection, subgraph: int):
        self.found = found
        self.flow = Dataflow(found, subgraph)
        self.nodes = self.flow.nodes
        self.obstacles = [obstacle(self.flow, i) for i in range(len(self.nodes))]
        self.stems = [i for i, node in enumerate(self.nodes) if is_stem(self.flow, node)]
        self.ends = [i for i, node in enumerate(self.nodes) if self.is_end(node)]

    def check(self) -> SparseCheck:
        stems = self.stems if self.ends else []
        region = self.after(stems, stop=self.is_barrier)
        kernels = self.kernels(region)
        misread, wrong = list(self.misread_weights()), list(self.wrong_layouts(stems, region))
        if misread or (wrong and any(_mostly_zero([kernel]) for kernel in kernels)):
            return SparseCheck("unsafe", (*misread, *self.advice()))
        if not wrong and _mostly_zero(kernels):
            return SparseCheck("sparse kernels", ())
        return SparseCheck("safe", tuple(self.advice()))

    def is_end(self, node: Node) -> bool:
        return node.op in _ENDS and self.flow.is_float(node) and self.flow.is_image(node.inputs[0])

    def is_barrier(self, i: int) -> bool:
        node = self.nodes[i]
        if node.op == "CONV_2D":
            return self.flow.shape(node.inputs[1])[1:3] != (1, 1)
        return node.op in _BARRIERS

    def is_flat(self, i: int) -> bool:
        """Return whether an op computes no image, or one pixel: its channels have one order."""
        return i in self.ends or not any(map(self.flow.is_image, self.nodes[i].outputs))

    def after(self, starts: Iterable[int], stop: Callable[[int], bool]) -> list[int]:
        """Return the ops that a region from `starts` could hold, in the order of execution."""
        found: set[int] = set()
        todo = list(starts)
        while todo:
            i = todo.pop()
            new = {reader for reader in self.flow.consumers(i) if reader not in found}
            if self.is_flat(i):
                new = {reader for reader in new if self.obstacles[reader] is None}
            found |= new
            todo += [reader for reader in new if not stop(reader)]
        return sorted(found)

    def kernels(self, region: Iterable[int]) -> list[Tensor]:
        """Return the weights of the ops that could skip zeros."""
        places = [
            self.nodes[i].inputs[1]
            for i in region
            if self.nodes[i].op in ("CONV_2D", "FULLY_CONNECTED") and not self.is_barrier(i)
        ]
        return [kernel for place in places if (kernel := self.flow.constant(place)) is not None]

    def wrong_layouts(self, starts: list[int], region: list[int]) -> Iterator[RuleViolation]:
        """Find where a region would read or write an image in the wrong order."""
        inside = {*starts, *region}
        for i in sorted(inside):
            node, blocked = self.nodes[i], self.obstacles[i]
            producers = {self.flow.producer(place) for place in self.flow.computed(node)}
            if i in region and blocked is not None:
                yield self.violation(i, *blocked)
            elif i in region and not producers <= inside:
                yield self.violation(
                    i,
                    "one of its inputs does not come from the stem",
                    "Compute all of its inputs from the stem",
                )
            if not self.is_flat(i) and any(out in self.flow.outputs for out in node.outputs):
                yield self.violation(
                    i,
                    "an image must not be an output of the model",
                    "Compute all outputs from GlobalAveragePooling2D",
                )
            readers = set(self.flow.consumers(i))
            if i in self.ends and readers & inside and readers - inside:
                yield self.violation(
                    i,
                    "a mean must go to Dense layers only, or to none of them",
                    "Use a GlobalAveragePooling2D for each branch",
                )

    def misread_weights(self) -> Iterator[RuleViolation]:
        """Find weights that are not stored floats: XNNPACK counts their zeros as if they were."""
        for i, node in enumerate(self.nodes):
            if not self.ends or node.op not in ("CONV_2D", "FULLY_CONNECTED"):
                continue
            if self.flow.constant(node.inputs[1]) is None:
                yield self.violation(
                    i, "its weights are computed", "Use a layer with stored weights"
                )
            elif not self.flow.is_float(node):
                yield self.violation(
                    i,
                    "it is quantized, while a mean over an image is float",
                    "Convert the whole model in one precision",
                )

    def advice(self) -> Iterator[RuleViolation]:
        """Find all that keeps the sparse kernels away, from the first convolutions on."""
        convs = {i for i, node in enumerate(self.nodes) if node.op in _CONVS}
        if not any(self.flow.is_float(self.nodes[i]) for i in convs):
            rule = "the sparse kernels are convolutions in float, and it has none"
            yield RuleViolation("", None, rule, "Convert to int8 or prune channels instead")
            return
        later: set[int] = set()
        for i, node in enumerate(self.nodes):
            if any(self.flow.producer(place) in convs | later for place in node.inputs):
                later.add(i)
        first = sorted(convs - later)
        for i in first:
            if i not in self.stems:
                yield self.violation(i, "it is no stem of a region of sparse kernels", STEM)
        starts = [*first, *self.stems]
        body = self.after(starts, stop=_never)
        yield from self.wrong_layouts(starts, body)
        if not self.ends:
            rule = "a region of sparse kernels must end in a mean over height and width"
            yield RuleViolation("", None, rule, "Use GlobalAveragePooling2D in place of Flatten")
        kernels = self.kernels(body)
        if not _mostly_zero(kernels):
            zeros, size = _zeros(kernels)
            rule = (
                "more than 2/3 of the weights of its 1x1 convolutions and Dense layers must be zero"
            )
            found = f"{rule}; {zeros / max(size, 1):.0%} are"
            yield RuleViolation("", None, found, "Prune them to a higher sparsity")

    def violation(self, i: int, rule: str, change: str) -> RuleViolation:
        names = map(layer_in, scope_names(self.nodes[i], self.found))
        layer = next((name for name in names if name is not None), None)
        return RuleViolation(self.nodes[i].op, layer, rule, change)


def _never(i: int) -> bool:
    return False


def _zeros(kernels: list[Tensor]) -> tuple[int, int]:
    """Return how many weights are zero, and how many there are."""
    sizes = [math.prod(d or 1 for d in kernel.shape) for kernel in kernels]
    shares = [1.0 if kernel.sparsity is None else kernel.sparsity for kernel in kernels]
    zeros = [round(size * share) for size, share in zip(sizes, shares, strict=True)]
    return sum(zeros), sum(sizes)


def _mostly_zero(kernels: list[Tensor]) -> bool:
    """Return whether XNNPACK would run sparse kernels on these weights."""
    zeros, size = _zeros(kernels)
    return 3 * zeros > 2 * size
