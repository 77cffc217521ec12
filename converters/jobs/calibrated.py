"""A float file -> one with ranges, which the quantizer of the TensorFlow converter makes int8.

The ranges of all tensors are measured, and chosen; files with loops leave that to the converter.
Before the file is quantized stand our repairs: of ranges that hold nothing but a mask, of ranges
that tensors share and that have no width, and of ops that int8 would ruin.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ..passes.base import Refused
from ..passes.flatbuffer import pack, unpack
from ..passes.graph import Graph, graphs
from .bias_correction import Uncorrected, readers_of_kernels, uncorrected
from .float_nodes import exact_values, uneven_inputs
from .negations import multiply_negations
from .normalizations import even_out, normalizations
from .observed import observe, why_unobservable
from .range_choices import choose, minmax
from .ranges import give_range, range_of, set_range, widen
from .shared_ranges import requantize, separate
from .softmax_masks import clip_masks
from .squared_differences import multiply_differences
from .sums import as_means
from .tensor_values import Samples, runs
from .unread_parts import drop_unread_parts

Array = np.ndarray[Any, np.dtype[Any]]
Range = tuple[float, float]

# Ops that copy the bytes of constants, and where these stand among their inputs.
_COPYING = {"ONE_HOT": (2, 3), "PADV2": (2,), "FILL": (1,)}

_RUNS = 100
"""Enough to see the range of the scores again."""


class Calibrated(NamedTuple):
    """A float file that is ready to be quantized.

    Attributes:
        content: The file, with a range for each computed tensor.
        kept_float: Names of the tensors whose ops must stay in float.
        uncorrected: Ops whose biases are to be corrected for their rounded kernels.
    """

    content: bytes
    kept_float: list[str]
    uncorrected: Mapping[int, Uncorrected] = MappingProxyType({})


def calibrate(
    content: bytes,
    samples: Samples,
    *,
    ranges: str,
    bias_correction: bool,
    float_inputs: bool,
    bits: int = 8,
    float_normalizations: bool = False,
) -> Calibrated | None:
    """Choose the range of each tensor from the values that samples give it.

    Args:
        content: A float file.
        samples: Samples for its inputs.
        ranges: Name of a function in `range_choices.CHOICES`.
        bias_correction: Whether to take from each bias what rounding the kernel adds on average.
        float_inputs: Whether the inputs of the integer file are float.
        bits: Bits of the activations. Defaults to 8.
        float_normalizations: Whether normalizations stay in float, with the sums that they read.
            Defaults to False.

    Returns:
        The file; None for one with loops or variables, whose tensors are out of reach.

    Raises:
        NotFinite: A tensor becomes NaN.
    """
    try:
        model = unpack(content)
    except Refused:
        return None
    if why_unobservable(model):
        return None
    graph = graphs(model)[0]
    if bits == 16:
        multiply_differences(graph)
    wide: set[int] = set()
    if float_normalizations:
        wide = normalizations(graph)
        wide |= even_out(graph, wide, samples)
    averaged = (
        [int(node.inputs[0]) for node in readers_of_kernels(graph)] if bias_correction else []
    )
    seen, means = observe(graph, samples, averaged)
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
            set_range(graph, index, *choose(ranges, seen[index], bits))
    _, kept = _mend(graph, float_inputs)
    kept += [graph.name(index) for index in sorted(wide)]
    biases = uncorrected(graph, means)
    return Calibrated(pack(model), kept, biases)


def repair(content: bytes, samples: Samples, float_inputs: bool) -> Calibrated:
    """Repair what would be lost in int8, in a file whose ranges the converter has measured.

    Args:
        content: A float file with measured ranges.
        samples: Samples for the inputs of the file.
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
            changed = clip_masks(graph, functools.partial(_measured, graph, samples))
        mended, kept = _mend(graph, float_inputs)
        changed, names = mended or changed, names + kept
    return Calibrated(pack(model) if changed else content, names)


def _measured(graph: Graph, samples: Samples, tensors: list[int]) -> dict[int, Range]:
    """Measure ranges anew.

    The converter's calibrator reads the inputs of an op after the op. If that wrote its result into
    the memory of an input, the calibrator takes the values of the result for those of the input.
    """
    found: dict[int, Range] = {}
    some = {name: array[: _RUNS * samples.batch_size] for name, array in samples.arrays.items()}
    for run in runs(graph, tensors, samples._replace(arrays=some)):
        for index in tensors:
            values = run.values(index)
            low, high = found.get(index, (np.inf, -np.inf))
            found[index] = min(low, float(values.min())), max(high, float(values.max()))
    return found


def _mend(graph: Graph, float_inputs: bool) -> tuple[bool, list[str]]:
    """Repair ranges; return whether there was one to repair, and what must stay in float."""
    keep = exact_values(graph) | (uneven_inputs(graph) if float_inputs else set())
    changed = separate(graph, keep)
    changed = widen(graph) or changed
    return changed, [graph[index].name.decode() for index in sorted(keep)]


def finish(content: bytes) -> bytes:
    """Repair what the quantizer leaves wrong in a file.

    The constants that ops copy get the scale of the tensor that they are copied to: the converter
    gives each one its own, and the 0.0 of a one-hot vector arrives as the byte 0, which may mean
    0.5. Ops that were put in to change a scale do only that. Sums become means.

    Args:
        content: A file with int8 weights; one after quantization-aware training, too.

    Returns:
        The file.
    """
    try:
        model = unpack(content)
    except Refused:
        return content
    for graph in graphs(model):
        requantize(graph)
        as_means(graph)
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
