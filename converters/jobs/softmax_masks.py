"""Masks of -1e9 before a softmax -> masks just below the scores. Runs in child processes.

Attention adds a huge negative number to the scores of masked positions, or puts it in their place.
In int8 that number would set the step of the tensor, and all real scores would be one integer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..passes.graph import Graph
from .ranges import producers, range_of, set_range

# Ops that only place values elsewhere, and ops that take one of two values.
_PLACING = {"RESHAPE", "TRANSPOSE", "BROADCAST_TO", "EXPAND_DIMS", "SQUEEZE", "TILE", "SLICE",
            "STRIDED_SLICE", "CONCATENATION"}  # fmt: skip
_CHOOSING = {"SELECT", "SELECT_V2"}
_ADDING = {"ADD": 1.0, "SUB": -1.0}

_MASK = -1e3
"""No real score is as low: exp(-1000) is 0.0 in float32."""

_LENGTH = 1024
"""Number of positions that is assumed where a file leaves it free."""


class Span(NamedTuple):
    """The smallest and the largest value of a tensor."""

    low: float
    high: float


Measure = Callable[[list[int]], dict[int, tuple[float, float]]]


def clip_masks(graph: Graph, measure: Measure) -> bool:
    """Replace the masks before each softmax by the lowest value that still hides a position.

    Let the real scores of n positions be at least a. A score of a - log(256 n) adds less than 1/n
    of a step to the int8 softmax, and all lower ones are set to that value. Fully masked rows stay
    uniform, because all of their scores saturate there.

    Args:
        graph: A float graph whose tensors have ranges. It is changed.
        measure: Measures the ranges of tensors anew. Those of the calibrator may hold the values of
            a tensor that was computed in the same memory.

    Returns:
        Whether the graph was changed.
    """
    masks = _Masks(graph)
    ops = graph.tables.operators
    sources = [int(node.inputs[0]) for node in ops if graph.op(node) == "SOFTMAX"]
    if not any(masks.hides(source, 1.0) for source in sources):
        return False
    wide = [
        index for index in masks.producers if masks.hides(index, 1.0) or masks.hides(index, -1.0)
    ]
    for index, (low, high) in measure(wide).items():
        masks.ranges[index] = low, high
        set_range(graph, index, low, high)
    spans = {}
    for source in sources:
        real = masks.real(source, 1.0) if masks.masked(source, 1.0) else None
        if real is not None:
            shape = graph[source].shapeSignature
            length = int((graph[source].shape if shape is None else shape)[-1])
            lowest = real.low - math.log(256.0 * (length if length > 0 else _LENGTH))
            spans[source] = Span(lowest, real.high)
    for source, span in spans.items():
        masks.clip(source, span, 1.0)
    return True


class _Masks:
    """The tensors between the masks, the scores and a softmax.

    A tensor is read with the sign with which it counts in the scores, which a subtraction turns.
    Ranges are those before any change, since several softmax ops may share a mask.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producers = producers(graph)
        self.ranges = {index: range_of(graph, index) for index in range(len(graph.tables.tensors))}
        self.floors: dict[int, float] = {}
        self.factors: dict[int, tuple[int, int]] = {}

    def span(self, index: int, sign: float) -> Span | None:
        """Return the values of a tensor, as they count in the scores; None if not known."""
        found = self.ranges.get(index)
        return None if found is None else Span(*sorted((sign * found[0], sign * found[1])))

    def hides(self, index: int, sign: float) -> bool:
        """Return whether a tensor holds values that hide a position."""
        span = self.span(index, sign)
        return span is not None and span.low < _MASK

    def masked(self, index: int, sign: float) -> bool:
        """Return whether a tensor holds masks that can be told from scores."""
        return self.hides(index, sign) and self.real(index, sign) != self.span(index, sign)

    def operands(self, index: int, sign: float) -> tuple[str, list[tuple[int, int, float]]]:
        """Return the op that computes a tensor, and its operands: place, tensor, sign."""
        node = self.producers.get(index)
        if node is None:
            return "", []
        op = self.graph.op(node)
        places = [(place, int(tensor), sign) for place, tensor in enumerate(node.inputs)]
        if op in _CHOOSING:
            return op, places[1:]
        if op in _ADDING:
            (first, second) = places
            return op, [first, (*second[:2], sign * _ADDING[op])]
        if op in _PLACING:
            return op, [p for p in places if self.ranges[p[1]] is not None]
        return op, places

    def real(self, index: int, sign: float) -> Span | None:
        """Return the values of a tensor that hide no position; None if all of them do."""
        span = self.span(index, sign)
        if span is None or not self.hides(index, sign):
            return span
        if self.graph.constant(index):
            values = sign * self.graph.array(index)
            seen = values[values >= _MASK]
            return Span(float(seen.min()), float(seen.max())) if seen.size else None
        op, operands = self.operands(index, sign)
        if op in _CHOOSING | _PLACING | set(_ADDING):
            reals = [self.real(tensor, turned) for _, tensor, turned in operands]
            found = [real for real in reals if real is not None]
            if op in _ADDING:
                lows, highs = [real.low for real in found], [real.high for real in found]
                return Span(sum(lows), sum(highs)) if len(found) == 2 else None
            if found:
                return Span(min(r.low for r in found), max(r.high for r in found))
            return None
        if op == "MUL" and self._factor(self.producers[index]) is not None:
            # 0.0 or 1.0 times a huge number; a position that is seen gets 0.
            return Span(span.high, span.high) if span.high >= _MASK else None
        return span

    def clip(self, index: int, span: Span, sign: float) -> None:
        """Clip a computed tensor, and what hides positions in its operands."""
        node = self.producers.get(index)
        if node is None or self.graph.constant(index):
            return
        low = self.floors[index] = min(span.low, self.floors.get(index, 0.0))
        set_range(self.graph, index, *sorted((sign * low, sign * max(span.high, 0.0))))
        op, operands = self.operands(index, sign)
        if op == "MUL":
            self._scale(node, low / self.span(index, sign).low)  # type: ignore[union-attr]
        if op not in _CHOOSING | _PLACING | set(_ADDING):
            return
        for position, (place, tensor, turned) in enumerate(operands):
            inner = Span(low, span.high)
            if op in _ADDING:
                other = self.real(operands[1 - position][1], operands[1 - position][2])
                own = self.real(tensor, turned)
                inner = Span(low - (other.high if other else 0.0), own.high if own else 0.0)
            if not self.masked(tensor, turned):
                if op in _CHOOSING:
                    # Both values of a choice have one scale.
                    set_range(self.graph, tensor, *sorted((turned * low, turned * span.high)))
            elif self.graph.constant(tensor):
                values = self.graph.array(tensor)
                clipped = turned * np.maximum(turned * values, np.float32(inner.low))
                self.graph.redirect(node, place, self.graph.add(tensor, clipped.astype(np.float32)))
            else:
                self.clip(tensor, inner, turned)

    def _factor(self, node: Any) -> tuple[int, int] | None:
        """Return the place and the tensor of the huge constant by which a mask is multiplied."""
        for place, tensor in enumerate(map(int, node.inputs)):
            found = self.ranges.get(tensor)
            if found and self.graph.constant(tensor) and max(map(abs, found)) > -_MASK:
                self.factors.setdefault(id(node), (place, tensor))
        return self.factors.get(id(node))

    def _scale(self, node: Any, factor: float) -> None:
        """Multiply the constant by which a mask is multiplied, as it was at first."""
        if (found := self._factor(node)) is not None:
            place, tensor = found
            values = self.graph.array(tensor) * np.float32(factor)
            self.graph.redirect(node, place, self.graph.add(tensor, values.astype(np.float32)))
