"""Would XNNPACK run a float graph with sparse kernels, and would that be right?

When weights lie behind DENSIFY, XNNPACK on Arm (and on x86 without AVX) looks for regions that it
can compute channels first, with 1x1 convolutions that skip zeros. Such a region begins at a stem
and ends at a global average pooling. Where it meets another op on the way, XNNPACK does not always
notice, and hands on the channels in the wrong order: wrong results, without a word.

The rules are those of `xnn_subgraph_rewrite_for_nchw` in
https://github.com/google/XNNPACK/blob/master/src/subgraph.c, seen at work on an emulated aarch64.
What was not seen to be right counts as unsafe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from tfcompress.converters.file.dataflow import Wiring
from tfcompress.converters.file.layers import layer_in
from tfcompress.converters.int8_coverage import scope_names

from .rules import STEM, is_stem, obstacle

if TYPE_CHECKING:
    from tfcompress.converters.file.read import Inspection, Node, Tensor

Kind = Literal["safe", "sparse kernels", "unsafe"]
_MEANING = {
    "safe": "on Arm dense kernels run, with the results of the dense file",
    "sparse kernels": "on Arm 1x1 convolutions skip zeros, once weights are stored sparse",
    "unsafe": "on Arm, weights stored sparse would give wrong results, or are not known to give "
    "right ones; store them dense, or convert to int8",
}

# Without any of these in the graph XNNPACK does not look for regions.
_ENDS = ("MEAN", "SUM", "DEPTH_TO_SPACE")
# Never part of a region, so that none goes on behind them.
_BARRIERS = ("MAX_POOL_2D",)
_CONVS = ("CONV_2D", "DEPTHWISE_CONV_2D")


@dataclass(frozen=True)
class Finding:
    """A rule that a graph breaks.

    Attributes:
        op: The op that breaks it; "" for the graph as a whole.
        layer: Path of the Keras layer that it comes from; None if its name does not tell.
        rule: What the sparse kernels want.
        change: What to do about it in Keras.
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
    """What becomes of a graph on Arm when weights lie behind DENSIFY.

    Attributes:
        kind: "safe": dense kernels and the results of the dense file. "sparse kernels": 1x1
            convolutions skip zeros. "unsafe": wrong results or a crash, or not known to be right.
        findings: What keeps the sparse kernels away, or makes them unsafe; none when they engage.
    """

    kind: Kind
    findings: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for `json.dumps`."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.kind}: {_MEANING[self.kind]}."]
        if self.findings:
            lines.append("What keeps the sparse kernels away:")
        return "\n".join([*lines, *(f"- {finding}" for finding in self.findings)])


def graph_form(found: Inspection) -> GraphForm:
    """Tell what would happen on Arm if weights of a file lay behind DENSIFY.

    The answer depends on which weights are zero. Ask about the weights as they will be stored:
    rounding to int8 makes more zeros.

    Example:
    >>> import keras, tempfile
    >>> from tfcompress import converters
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = converters.inspect(converters.convert(model, f"{folder}/tiny.tflite"))
    >>> converters.graph_form(found).kind
    'safe'

    Args:
        found: A file, its weights dense or already behind DENSIFY.

    Returns:
        The class of its graph, and the rules that it breaks.
    """
    forms = [_Graph(found, number).form() for number in range(len(found.subgraphs))]
    kinds: tuple[Kind, ...] = ("unsafe", "sparse kernels", "safe")
    kind = next(kind for kind in kinds if any(form.kind == kind for form in forms))
    told = [forms[0], *(form for form in forms[1:] if form.kind == "unsafe")]
    return GraphForm(kind, tuple(finding for form in told for finding in form.findings))


class _Graph:
    """A subgraph, and the region of it that XNNPACK would compute channels first."""

    def __init__(self, found: Inspection, subgraph: int):
        self.found = found
        self.wiring = Wiring(found, subgraph)
        self.nodes = self.wiring.nodes
        self.obstacles = [obstacle(self.wiring, i) for i in range(len(self.nodes))]
        self.stems = [i for i, node in enumerate(self.nodes) if is_stem(self.wiring, node)]
        self.ends = [i for i, node in enumerate(self.nodes) if self.is_end(node)]

    def form(self) -> GraphForm:
        stems = self.stems if self.ends else []
        region = self.behind(stems, stop=self.is_barrier)
        kernels = self.kernels(region)
        traps, leaks = list(self.traps()), list(self.leaks(stems, region))
        if traps or (leaks and any(_mostly_zero([kernel]) for kernel in kernels)):
            return GraphForm("unsafe", (*traps, *self.advice()))
        if not leaks and _mostly_zero(kernels):
            return GraphForm("sparse kernels", ())
        return GraphForm("safe", tuple(self.advice()))

    def is_end(self, node: Node) -> bool:
        return (
            node.op in _ENDS and self.wiring.is_float(node) and self.wiring.is_image(node.inputs[0])
        )

    def is_barrier(self, i: int) -> bool:
        node = self.nodes[i]
        if node.op == "CONV_2D":
            return self.wiring.shape(node.inputs[1])[1:3] != (1, 1)
        return node.op in _BARRIERS

    def is_flat(self, i: int) -> bool:
        """Whether an op computes no image, or one of a single pixel: any order is the same."""
        return i in self.ends or not self.wiring.is_image(self.nodes[i].outputs[0])

    def behind(self, starts: Iterable[int], stop: Callable[[int], bool]) -> list[int]:
        """The ops that a region from `starts` could hold, in the order of execution."""
        found: set[int] = set()
        todo = list(starts)
        while todo:
            i = todo.pop()
            new = {taker for taker in self.wiring.takers(i) if taker not in found}
            if self.is_flat(i):
                new = {taker for taker in new if self.obstacles[taker] is None}
            found |= new
            todo += [taker for taker in new if not stop(taker)]
        return sorted(found)

    def kernels(self, region: Iterable[int]) -> list[Tensor]:
        """Of the ops that could skip zeros."""
        places = [
            self.nodes[i].inputs[1]
            for i in region
            if self.nodes[i].op in ("CONV_2D", "FULLY_CONNECTED") and not self.is_barrier(i)
        ]
        return [kernel for place in places if (kernel := self.wiring.constant(place)) is not None]

    def leaks(self, starts: list[int], region: list[int]) -> Iterator[Finding]:
        """Where a region would take or give an image in the wrong order."""
        inside = {*starts, *region}
        for i in sorted(inside):
            node, stands = self.nodes[i], self.obstacles[i]
            makers = {self.wiring.maker(place) for place in self.wiring.computed(node)}
            if i in region and stands is not None:
                yield self.finding(i, *stands)
            elif i in region and not makers <= inside:
                yield self.finding(i, "it joins what does not come from the stem",
                                   "Let all that it takes come from there")  # fmt: skip
            if not self.is_flat(i) and any(out in self.wiring.outputs for out in node.outputs):
                yield self.finding(i, "an image must not be an output of the model",
                                   "Let all outputs come from GlobalAveragePooling2D")  # fmt: skip
            takers = set(self.wiring.takers(i))
            if i in self.ends and takers & inside and takers - inside:
                yield self.finding(i, "what is averaged must go to Dense layers only, or to none",
                                   "Use a GlobalAveragePooling2D for each branch")  # fmt: skip

    def traps(self) -> Iterator[Finding]:
        """Weights that are no stored floats: XNNPACK counts their zeros as if they were."""
        for i, node in enumerate(self.nodes):
            if not self.ends or node.op not in ("CONV_2D", "FULLY_CONNECTED"):
                continue
            if self.wiring.constant(node.inputs[1]) is None:
                yield self.finding(i, "its weights are computed", "Use a layer with stored weights")
            elif not self.wiring.is_float(node):
                yield self.finding(i, "it is quantized, while a mean over an image is float",
                                   "Convert all of the model in one precision")  # fmt: skip

    def advice(self) -> Iterator[Finding]:
        """All that keeps the sparse kernels away, from the first convolutions on."""
        convs = {i for i, node in enumerate(self.nodes) if node.op in _CONVS}
        if not any(self.wiring.is_float(self.nodes[i]) for i in convs):
            rule = "the sparse kernels are convolutions in float, and it has none"
            yield Finding("", None, rule, "For speed convert to int8, or prune whole channels")
            return
        later: set[int] = set()
        for i, node in enumerate(self.nodes):
            if any(self.wiring.maker(place) in convs | later for place in node.inputs):
                later.add(i)
        first = sorted(convs - later)
        for i in first:
            if i not in self.stems:
                yield self.finding(i, "it is no stem of a region of sparse kernels", STEM)
        starts = [*first, *self.stems]
        body = self.behind(starts, stop=_never)
        yield from self.leaks(starts, body)
        if not self.ends:
            rule = "a region of sparse kernels must end in a mean over height and width"
            yield Finding("", None, rule, "Use GlobalAveragePooling2D in place of Flatten")
        kernels = self.kernels(body)
        if not _mostly_zero(kernels):
            zeros, size = _zeros(kernels)
            rule = (
                "more than 2/3 of the weights of its 1x1 convolutions and Dense layers must be zero"
            )
            found = f"{rule}; {zeros / max(size, 1):.0%} are"
            yield Finding("", None, found, "Prune them to a higher sparsity")

    def finding(self, i: int, rule: str, change: str) -> Finding:
        names = map(layer_in, scope_names(self.nodes[i], self.found))
        layer = next((name for name in names if name is not None), None)
        return Finding(self.nodes[i].op, layer, rule, change)


def _never(i: int) -> bool:
    return False


def _zeros(kernels: list[Tensor]) -> tuple[int, int]:
    """How many weights are zero, and how many there are."""
    sizes = [math.prod(d or 1 for d in kernel.shape) for kernel in kernels]
    shares = [1.0 if kernel.sparsity is None else kernel.sparsity for kernel in kernels]
    zeros = [round(size * share) for size, share in zip(sizes, shares, strict=True)]
    return sum(zeros), sum(sizes)


def _mostly_zero(kernels: list[Tensor]) -> bool:
    """Whether XNNPACK would take the sparse kernels for these weights."""
    zeros, size = _zeros(kernels)
    return 3 * zeros > 2 * size
