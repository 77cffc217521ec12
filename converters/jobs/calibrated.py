"""A float file -> one with ranges, which the quantizer of the TensorFlow converter makes int8.

The ranges of all tensors are measured, and chosen; files with loops leave that to the converter.
Before the file is quantized stand our repairs: of ranges that hold nothing but a mask, of ranges
that tensors share and that have no width, and of ops that int8 would ruin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ..passes.base import Refused
from ..passes.flatbuffer import pack, unpack
from ..passes.graph import Graph, graphs
from .bias_correction import correct_biases, readers_of_kernels
from .float_nodes import exact_values, uneven_inputs
from .negations import multiply_negations
from .observed import observable, observe
from .range_choices import CHOICES, minmax
from .ranges import give_range, measure, range_of, set_range, widen
from .shared_ranges import requantize, separate
from .softmax_masks import clip_masks
from .unread_parts import drop_unread_parts

Array = np.ndarray[Any, np.dtype[Any]]

# Ops that copy the bytes of constants, and where these stand among their inputs.
_COPYING = {"ONE_HOT": (2, 3), "PADV2": (2,), "FILL": (1,)}

_RUNS = 100
"""Enough to see the range of the scores again."""


class Calibrated(NamedTuple):
    """A float file that is ready to be quantized.

    Attributes:
        content: The file, with a range for each computed tensor.
        kept_float: Names of the tensors whose ops must stay in float.
    """

    content: bytes
    kept_float: list[str]


def calibrate(
    content: bytes,
    samples: dict[str, Array],
    batch_size: int,
    *,
    ranges: str,
    bias_correction: bool,
    float_inputs: bool,
) -> Calibrated | None:
    """Choose the range of each tensor from the values that samples give it.

    Args:
        content: A float file.
        samples: Arrays by input name, in whole batches.
        batch_size: Samples that the file takes at once, if it does not leave that free.
        ranges: Name of a function in `range_choices.CHOICES`.
        bias_correction: Whether to take from each bias what rounding the kernel adds on average.
        float_inputs: Whether the inputs of the int8 file are float.

    Returns:
        The file; None for one with loops or variables, whose tensors are out of reach.

    Raises:
        NotFinite: A tensor becomes NaN.
    """
    try:
        model = unpack(content)
    except Refused:
        return None
    if not observable(model):
        return None
    graph = graphs(model)[0]
    averaged = (
        [int(node.inputs[0]) for node in readers_of_kernels(graph)] if bias_correction else []
    )
    seen, means = observe(content, samples, batch_size, averaged)
    exact = {index: minmax(values) for index, values in seen.items() if values.low <= values.high}
    for index, (low, high) in exact.items():
        give_range(graph, index, low, high)
    drop_unread_parts(graph)
    multiply_negations(graph)
    clip_masks(graph, lambda tensors: {index: exact[index] for index in tensors})
    # Samples bound the inputs; a narrower range would clip what the user knows.
    inputs = set(map(int, graph.tables.inputs))
    for index in exact.keys() - inputs:
        if range_of(graph, index) == exact[index]:
            set_range(graph, index, *CHOICES[ranges](seen[index]))
    correct_biases(graph, means)
    _, kept = _mend(graph, float_inputs)
    return Calibrated(pack(model), kept)


def repair(
    content: bytes, batches: Callable[[], Iterable[dict[str, Any]]], float_inputs: bool
) -> Calibrated:
    """Repair what would be lost in int8, in a file whose ranges the converter has measured.

    Args:
        content: A float file with measured ranges.
        batches: Returns calibration samples for the file, run by run.
        float_inputs: Whether the inputs of the int8 file are float.

    Returns:
        The file, and the names of the ops that must stay in float.
    """
    try:
        model = unpack(content)
    except Refused:
        return Calibrated(content, [])
    changed, names = False, list[str]()
    for number, graph in enumerate(graphs(model)):
        if number == 0:
            changed = clip_masks(
                graph, lambda tensors: measure(content, islice(batches(), _RUNS), tensors)
            )
        mended, kept = _mend(graph, float_inputs)
        changed, names = mended or changed, names + kept
    return Calibrated(pack(model) if changed else content, names)


def _mend(graph: Graph, float_inputs: bool) -> tuple[bool, list[str]]:
    """Repair ranges; return whether there was one to repair, and what must stay in float."""
    changed = separate(graph)
    changed = widen(graph) or changed
    keep = exact_values(graph) | (uneven_inputs(graph) if float_inputs else set())
    return changed, [graph[index].name.decode() for index in sorted(keep)]


def finish(content: bytes) -> bytes:
    """Store the constants that ops copy in the scale of the tensor that they are copied to.

    The converter gives each constant a scale of its own. The 0.0 of a one-hot vector then arrives
    as the byte 0, which may mean 0.5. Ops that were put in to change a scale do only that.

    Args:
        content: An int8 file.

    Returns:
        The file.
    """
    try:
        model = unpack(content)
    except Refused:
        return content
    for graph in graphs(model):
        requantize(graph)
        for node in graph.tables.operators:
            for place in _COPYING.get(graph.op(node), ()):
                out, tensor = graph[int(node.outputs[0])], int(node.inputs[place])
                if out.type == schema.TensorType.INT8 and graph.constant(tensor):
                    graph.redirect(node, place, _rescaled(graph, tensor, out.quantization))
    return pack(model)


def _rescaled(graph: Graph, tensor: int, wanted: Any) -> int:
    """Return a constant with the values of another one, in another scale."""
    own = graph[tensor].quantization
    real = (graph.array(tensor).astype(np.float64) - own.zeroPoint[0]) * own.scale[0]
    steps = np.rint(real / wanted.scale[0]) + wanted.zeroPoint[0]
    copy = graph.add(tensor, np.clip(steps, -128, 127).astype(np.int8))
    graph[copy].quantization = wanted
    return copy
