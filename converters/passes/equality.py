"""Compare two .tflite files on the same inputs, on every CPU path of the runtime.

Runs in child processes. The files compute the same if their outputs are equal bit for bit, where
0.0 equals -0.0 and every NaN equals every other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import compiled_model as compiled
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from .flatbuffer import unpack
from .graph import graphs

Array = np.ndarray[Any, np.dtype[Any]]
Feed = dict[str, dict[str, Array]]
"""Signature -> input -> values."""

# Input that holds the table of an op that looks up rows: no index may exceed its length.
_ROWS = {"GATHER": 0, "EMBEDDING_LOOKUP": 1}

# Input of a language model with a cache: places that follow each other, within the cache.
_POSITIONS = "input_pos"


def difference(expected: Path, actual: Path, tolerance: float = 0.0) -> str:
    """Say where two files compute different outputs.

    Args:
        expected: The file that is right.
        actual: A file with the same signatures.
        tolerance: Largest difference allowed, as a share of the largest output. Defaults to 0.0.

    Returns:
        A sentence; "" if the outputs are equal on every path that runs the first file.

    Raises:
        ValueError: No path runs the first file.
    """
    ran = 0
    for name, run in engines().items():
        for feed in feeds(expected, (1.0, 100.0) if tolerance == 0 else (1.0,)):
            try:
                wanted = run(expected, feed)
            except (RuntimeError, ValueError):
                continue
            ran += 1
            try:
                found = run(actual, feed)
            except (RuntimeError, ValueError) as error:
                return f"on {name} it fails: {error}"
            if said := outputs_differ(wanted, found, tolerance):
                return f"on {name}, {said}"
    if not ran:
        raise ValueError("the runtime runs it neither with XNNPACK nor without")
    return ""


def outputs_differ(
    wanted: dict[str, Array], found: dict[str, Array], tolerance: float = 0.0
) -> str:
    """Say which output is another one; "" if all are equal, or within the tolerance."""
    for key, value in wanted.items():
        if not np.array_equal(value, found[key], equal_nan=value.dtype.kind == "f"):
            wide = value.astype(np.float64)
            off = np.abs(wide - found[key].astype(np.float64)).max()
            # Written so that NaN is a difference.
            if off <= tolerance * np.abs(wide).max():
                continue
            return f"output '{key}' differs by up to {off:g}"
    return ""


def feeds(path: Path, spreads: tuple[float, ...]) -> Iterator[Feed]:
    """Yield random inputs in range: one row, and three if the batch is free."""
    model = unpack(path.read_bytes())
    rows = [
        graph[int(node.inputs[_ROWS[graph.op(node)]])].shape[0]
        for graph in graphs(model)
        for node in graph.tables.operators
        if graph.op(node) in _ROWS and graph.constant(int(node.inputs[_ROWS[graph.op(node)]]))
    ]
    limit = int(min(rows, default=2))
    interpreter = Interpreter(model_path=str(path))
    rng = np.random.default_rng(0)
    for batch, spread in (*((1, spread) for spread in spreads), (3, 1.0)):
        feed: Feed = {}
        for key in interpreter.get_signature_list() or [""]:
            details = (
                interpreter.get_signature_runner(key).get_input_details()
                if key
                else {d["name"]: d for d in interpreter.get_input_details()}
            )
            feed[key] = {
                name: _values(rng, name, d["dtype"], _shape(d, batch), spread, limit)
                for name, d in details.items()
            }
        yield feed


def _shape(details: Any, batch: int) -> list[int]:
    signature = [int(size) for size in details["shape_signature"]]
    shape = [int(size) for size in details["shape"]]
    if signature and signature[0] < 0:
        shape[0] = batch
    return shape


def _values(
    rng: np.random.Generator, name: str, dtype: Any, shape: list[int], spread: float, limit: int
) -> Array:
    kind = np.dtype(dtype)
    if name == _POSITIONS:
        return np.arange(int(np.prod(shape)), dtype=kind).reshape(shape)
    if kind.kind == "f":
        return (rng.normal(size=shape) * spread).astype(kind)
    if kind.kind == "b":
        return rng.random(shape) > 0.5
    if kind.itemsize == 1:
        info = np.iinfo(kind)
        return rng.integers(info.min, info.max, shape, kind, endpoint=True)
    return rng.integers(0, limit, shape).astype(kind)


def engines() -> dict[str, Callable[[Path, Feed], dict[str, Array]]]:
    """Return the CPU paths of the runtime: a file and its inputs -> outputs, by `key.name`."""

    def interpreted(resolver: Any) -> Callable[[Path, Feed], dict[str, Array]]:
        return lambda path, feed: _interpret(path, feed, resolver)

    def compiled_with(mode: Any) -> Callable[[Path, Feed], dict[str, Array]]:
        return lambda path, feed: _compile(path, feed, mode)

    return {
        "the Interpreter with XNNPACK": interpreted(OpResolverType.BUILTIN),
        "the Interpreter without XNNPACK": interpreted(
            OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        ),
        "CompiledModel with XNNPACK": compiled_with(compiled.CpuKernelMode.DELEGATE),
        "CompiledModel without XNNPACK": compiled_with(compiled.CpuKernelMode.BUILTIN),
    }


def _interpret(path: Path, feed: Feed, resolver: Any) -> dict[str, Array]:
    interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=resolver)
    outputs: dict[str, Array] = {}
    for key, inputs in feed.items():
        if key:
            found = interpreter.get_signature_runner(key)(**inputs)
            outputs |= {f"{key}.{name}": value for name, value in found.items()}
            continue
        details = {d["name"]: d["index"] for d in interpreter.get_input_details()}
        for name, value in inputs.items():
            interpreter.resize_tensor_input(details[name], value.shape)
        interpreter.allocate_tensors()
        for name, value in inputs.items():
            interpreter.set_tensor(details[name], value)
        interpreter.invoke()
        for d in interpreter.get_output_details():
            outputs[d["name"]] = interpreter.get_tensor(d["index"])
    return outputs


def _compile(path: Path, feed: Feed, mode: Any) -> dict[str, Array]:
    options = compiled.Options(cpu_options=compiled.CpuOptions(num_threads=1, kernel_mode=mode))
    model = compiled.CompiledModel.from_file(str(path), options=options)
    outputs: dict[str, Array] = {}
    for key, names in model.get_signature_list().items():
        # CompiledModel makes up a signature for a file without any.
        inputs = feed[key] if key in feed else feed[""]
        details = model.get_input_tensor_details(key)
        if any(list(value.shape) != list(details[name]["shape"]) for name, value in inputs.items()):
            # CompiledModel crashes on some files when it resizes their inputs.
            raise ValueError("CompiledModel runs inputs of the shape in the file only")
        sources = {n: model.create_input_buffer_by_name(key, n) for n in names["inputs"]}
        targets = {n: model.create_output_buffer_by_name(key, n) for n in names["outputs"]}
        for name, value in inputs.items():
            sources[name].write(np.ascontiguousarray(value))
        model.run_by_name(key, sources, targets)
        for name, output in model.get_output_tensor_details(key).items():
            size = int(np.prod(output["shape"]))
            flat = targets[name].read(size, np.dtype(output["dtype"]).type)
            outputs[f"{key}.{name}"] = flat.reshape(output["shape"])
    return outputs
