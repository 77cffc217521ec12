"""The values of all tensors of a float file, counted on samples. Runs in child processes.

The runtime overwrites a tensor that no op needs any more, and XNNPACK keeps its outputs only. So
the file runs with all of its tensors as outputs: ten times as fast as without XNNPACK, and no
tensor holds the values of another one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from ..passes.flatbuffer import pack, unpack
from ..passes.graph import Graph, graphs
from .histogram import Histogram, NotFinite
from .ranges import is_float, producers

Array = np.ndarray[Any, np.dtype[Any]]

_FLOATS = 2**20
"""Floats of all tensors together in one run: as many as caches hold."""

# Ops that keep a state or run another graph, whose tensors are out of reach.
_STATEFUL = {"ASSIGN_VARIABLE", "CALL_ONCE", "CUSTOM", "IF", "READ_VARIABLE", "STABLEHLO_COMPOSITE",
             "VAR_HANDLE", "WHILE"}  # fmt: skip


class Observed(NamedTuple):
    """What samples made of the tensors of a file, by index.

    Attributes:
        values: The values of each float tensor: of inputs and of what ops compute.
        means: The mean of each channel (the last axis) of the tensors for which it was asked.
    """

    values: dict[int, Histogram]
    means: dict[int, Array]


def observable(model: Any) -> bool:
    """Return whether all tensors of a file can be read after a run.

    Args:
        model: The `ModelT` of a float file.

    Returns:
        False for a file with loops, branches, variables or custom ops.
    """
    parts = graphs(model)
    ops = {parts[0].op(node) for node in parts[0].tables.operators}
    variables = any(tensor.isVariable for tensor in parts[0].tables.tensors)
    return (
        len(parts) == 1
        and len(model.signatureDefs or ()) == 1
        and not (ops & _STATEFUL or variables)
    )


def observe(
    content: bytes, samples: dict[str, Array], batch_size: int, averaged: Collection[int] = ()
) -> Observed:
    """Count the values of all float tensors that the samples reach.

    Args:
        content: A float file for which `observable` is true.
        samples: Arrays by input name.
        batch_size: Samples that the file takes at once, if it does not leave that free.
        averaged: Tensors whose channels are averaged, too. Defaults to none.

    Returns:
        What was seen.

    Raises:
        NotFinite: A tensor becomes NaN.
    """
    model = unpack(content)
    graph = graphs(model)[0]
    inputs = {bytes(t.name).decode(): int(t.tensorIndex) for t in model.signatureDefs[0].inputs}
    wanted = [index for index in producers(graph) if is_float(graph, index)]
    size = _batch(graph, inputs, wanted, batch_size)
    known = {index for index in (*inputs.values(), *wanted) if is_float(graph, index)}
    names = {index: bytes(graph[index].name).decode("utf-8", "replace") for index in known}
    border = list(map(int, graph.tables.outputs))
    added = [index for index in wanted if index not in border]
    graph.tables.outputs = np.array(border + added, np.int32)
    run = _runner(pack(model))
    seen: dict[int, Histogram] = {}
    sums: dict[int, Array] = {}
    count = len(next(iter(samples.values())))

    def look(index: int, values: Array, rows: int) -> None:
        if index in averaged:
            mean = values.mean(tuple(range(values.ndim - 1)), dtype=np.float64)
            sums[index] = sums.get(index, 0.0) + mean * rows
        by_sample = values.reshape(rows if values.size % rows == 0 else 1, -1)
        try:
            seen[index] = seen.get(index, Histogram()).add(by_sample)
        except NotFinite as error:
            what = f"computes NaN on these samples, first in tensor '{names[index]}'"
            raise NotFinite(what) from error

    for batch in _batches(samples, size):
        feed = {inputs[name]: array for name, array in batch.items()}
        rows = len(next(iter(batch.values())))
        values = run(feed)
        for index, array in feed.items():
            if index in known:
                look(index, array, rows)
        for index in wanted:
            look(index, values(index), rows)
    return Observed(seen, {index: total / count for index, total in sums.items()})


def _batch(graph: Graph, inputs: dict[str, int], wanted: Iterable[int], fixed: int) -> int:
    """Return how many samples to run at once."""
    signatures = [graph[index].shapeSignature for index in inputs.values()]
    if any(shape is None or not len(shape) or shape[0] != -1 for shape in signatures):
        return fixed
    floats = sum(int(np.prod(graph[index].shape)) for index in wanted)
    return max(1, min(64, _FLOATS // max(floats, 1)))


def _batches(samples: dict[str, Array], size: int) -> Iterator[dict[str, Array]]:
    count = len(next(iter(samples.values())))
    for start in range(0, count, size):
        yield {name: array[start : start + size] for name, array in samples.items()}


Run = Callable[[dict[int, Array]], Callable[[int], Array]]


def _runner(content: bytes) -> Run:
    """Return a function that runs a file: inputs by index -> what returns a tensor by index."""
    interpreter: Any = None

    def start(resolver: Any, feed: dict[int, Array]) -> Any:
        started = Interpreter(
            model_content=content,
            experimental_op_resolver_type=resolver,
            num_threads=min(4, os.cpu_count() or 1),
        )
        _run(started, feed)
        return started

    def run(feed: dict[int, Array]) -> Callable[[int], Array]:
        nonlocal interpreter
        if interpreter is not None:
            _run(interpreter, feed)
        else:
            try:
                interpreter = start(OpResolverType.AUTO, feed)
            except (RuntimeError, ValueError):
                interpreter = start(OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, feed)
        return lambda index: np.asarray(interpreter.tensor(index)())

    return run


def _run(interpreter: Any, feed: dict[int, Array]) -> None:
    details = {d["index"]: tuple(d["shape"]) for d in interpreter.get_input_details()}
    for index, array in feed.items():
        if details[index] != array.shape:
            interpreter.resize_tensor_input(index, array.shape)
    interpreter.allocate_tensors()
    for index, array in feed.items():
        interpreter.set_tensor(index, array)
    interpreter.invoke()
