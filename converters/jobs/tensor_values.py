"""The values of tensors of a float .tflite file on samples. Runs in child processes.

The runtime overwrites a tensor that no op needs any more, and XNNPACK keeps its outputs only. So
the file runs with the tensors as its outputs: ten times as fast as without XNNPACK, and no tensor
holds the values of another one.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from ..passes.flatbuffer import pack
from ..passes.graph import Graph
from .ranges import producers

Array = np.ndarray[Any, np.dtype[Any]]

# Ops that keep a state or run another graph, whose tensors are out of reach.
STATEFUL = frozenset({"ASSIGN_VARIABLE", "CALL_ONCE", "CUSTOM", "IF", "READ_VARIABLE",
                      "STABLEHLO_COMPOSITE", "VAR_HANDLE", "WHILE"})  # fmt: skip

_FLOATS = 2**20
"""Floats of all tensors together in one run: as many as caches hold."""

_MOST = 64


class Samples(NamedTuple):
    """Samples for a file.

    Attributes:
        arrays: Arrays by input name, in whole batches; the first axis is the sample.
        batch_size: Samples that the file takes at once, if it does not leave that free.
    """

    arrays: dict[str, Array]
    batch_size: int = 1

    @property
    def size(self) -> int:
        """Return the number of samples."""
        return len(next(iter(self.arrays.values())))

    def batches(self, size: int | None = None) -> Iterator[dict[str, Array]]:
        """Yield the arrays of each batch, in the order of the samples.

        Args:
            size: Samples to a batch. Defaults to None, `batch_size`.
        """
        step = size or self.batch_size
        for start in range(0, self.size, step):
            yield {name: array[start : start + step] for name, array in self.arrays.items()}


def load(samples: dict[str, Any]) -> Samples:
    """Return the samples of an .npz file.

    Args:
        samples: The file ("path"), the input name of each of its arrays ("names") and the rows to a
            batch ("batch_size").
    """
    with np.load(samples["path"]) as file:
        arrays = {name: file[f"arr_{index}"] for index, name in enumerate(samples["names"])}
    return Samples(arrays, samples["batch_size"])


class Run(NamedTuple):
    """One run of a file.

    Attributes:
        rows: Number of samples in it.
        values: Returns the values of a tensor.
    """

    rows: int
    values: Callable[[int], Array]


def inputs_of(model: Any) -> dict[str, int]:
    """Return the inputs of a file: their names and their tensors."""
    signature = model.signatureDefs[0]
    return {bytes(entry.name).decode(): int(entry.tensorIndex) for entry in signature.inputs}


def runs(graph: Graph, tensors: Collection[int], samples: Samples) -> Iterator[Run]:
    """Run a file and look at some of its tensors.

    Args:
        graph: The main graph of a float file. It stays as it is.
        tensors: Tensors that an op or the user computes.
        samples: Samples for the inputs of the file.

    Yields:
        Each run, of many samples where the file leaves the batch free.
    """
    inputs = inputs_of(graph.model)
    part = computing(graph, tensors)
    run = _runner(pack(part)) if len(part.subgraphs[0].outputs) else _nothing
    size = _batch(graph, inputs, tensors, samples.batch_size)
    for batch in samples.batches(size):
        feed = {inputs[name]: array for name, array in batch.items()}
        computed = run(feed)

        def values(index: int, feed: dict[int, Array] = feed, computed: Any = computed) -> Array:
            return feed[index] if index in feed else computed(index)

        yield Run(len(next(iter(batch.values()))), values)


def computing(graph: Graph, tensors: Collection[int]) -> Any:
    """Return a file that computes some tensors, and holds no op that they do not need.

    Args:
        graph: The main graph of a file. It stays as it is.
        tensors: The tensors, which become the outputs.

    Returns:
        The `ModelT`, with the tensors under their numbers.
    """
    makers = producers(graph)
    needed: set[int] = set()
    kept_on = [node for node in graph.tables.operators if graph.op(node) in STATEFUL]
    ahead = [*tensors, *(int(index) for node in kept_on for index in node.outputs)]
    needed.update(id(node) for node in kept_on)
    ahead += [int(index) for node in kept_on for index in node.inputs]
    while ahead:
        node = makers.get(ahead.pop())
        if node is not None and id(node) not in needed:
            needed.add(id(node))
            ahead += [int(index) for index in node.inputs]
    tables = copy.copy(graph.tables)
    tables.operators = [node for node in tables.operators if id(node) in needed]
    given = set(map(int, tables.inputs))
    tables.outputs = np.array([i for i in dict.fromkeys(tensors) if i not in given], np.int32)
    part = copy.copy(graph.model)
    part.subgraphs = [tables, *part.subgraphs[1:]]
    part.signatureDefs = part.metadata = None
    return copy.deepcopy(part)


def _batch(graph: Graph, inputs: dict[str, int], tensors: Collection[int], fixed: int) -> int:
    """Return how many samples to run at once."""
    signatures = [graph[index].shapeSignature for index in inputs.values()]
    if any(shape is None or not len(shape) or shape[0] != -1 for shape in signatures):
        return fixed
    floats = sum(int(np.prod(graph[index].shape)) for index in tensors)
    return max(1, min(_MOST, _FLOATS // max(floats, 1)))


def _runner(content: bytes) -> Callable[[dict[int, Array]], Callable[[int], Array]]:
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
        return lambda index: np.asarray(interpreter.get_tensor(index))

    return run


def _nothing(feed: dict[int, Array]) -> Callable[[int], Array]:
    """Run a file of inputs only."""
    return feed.__getitem__


def _run(interpreter: Any, feed: dict[int, Array]) -> None:
    details = {d["index"]: tuple(d["shape"]) for d in interpreter.get_input_details()}
    for index, array in feed.items():
        if details[index] != array.shape:
            interpreter.resize_tensor_input(index, array.shape)
    interpreter.allocate_tensors()
    for index, array in feed.items():
        interpreter.set_tensor(index, array)
    interpreter.invoke()
