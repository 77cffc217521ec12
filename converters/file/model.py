"""The content of a .tflite file as plain data."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tfcompress.edge.shown import Shown
from tfcompress.model.tables import as_text, new_table

from .on_demand import gzip_bytes, load_error


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file.

    Attributes:
        name: Name in the file; contains the path of the Keras layer that it comes from.
        subgraph: Number of the subgraph that holds it; 0 is the main one.
        dtype: Type of the elements, such as "float32", "int8" or "int4".
        shape: Sizes; None stands for a free dimension.
        scales: Quantization steps: one, or one for each index along `axis`. Empty if the tensor is
            not quantized.
        zero_points: Stored values that mean 0.0; as many as `scales`.
        axis: Dimension along which `scales` run; None if there is at most one scale.
        constant: Whether the file stores the values, as it does for weights and shapes.
        buffer: Number of the buffer that holds the values; two tensors may share a buffer.
        bytes: Stored bytes of a constant. Size in memory of any other tensor, in which a free
            dimension counts as 1.
        sparsity: Share of a constant's elements that are exactly zero; None for other tensors.
        values: Elements of a small integer constant, such as axes or paddings, flat; else None.
    """

    name: str
    subgraph: int
    dtype: str
    shape: tuple[int | None, ...]
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int | None
    constant: bool
    buffer: int
    bytes: int
    sparsity: float | None
    values: tuple[int, ...] | None

    @property
    def quantized(self) -> bool:
        """Return whether the integers stand for real numbers."""
        return bool(self.scales)


@dataclass(frozen=True)
class Node:
    """One op of a graph.

    Attributes:
        op: Name of the op, such as "CONV_2D".
        inputs: Indices into `Inspection.tensors`.
        outputs: Indices into `Inspection.tensors`.
        subgraph: Number of the subgraph that holds it.
        options: Options by their names in the schema, such as "stride_w": 2 and "padding": "SAME".
    """

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    subgraph: int
    options: dict[str, Any]


@dataclass(frozen=True)
class FileSignature:
    """A way to call a file.

    Attributes:
        key: Name of the signature.
        inputs: Input name -> index into `Inspection.tensors`.
        outputs: Output name -> index into `Inspection.tensors`.
    """

    key: str
    inputs: dict[str, int]
    outputs: dict[str, int]


@dataclass(frozen=True)
class Subgraph:
    """Where a graph begins and ends.

    Attributes:
        inputs: Indices into `Inspection.tensors`.
        outputs: Indices into `Inspection.tensors`.
        name: Name in the file; often empty. Defaults to none.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    name: str = ""


@dataclass(frozen=True)
class GraphOp:
    """An op and the Keras layer that it comes from.

    >>> print(GraphOp("FULLY_CONNECTED", "encoder/head"))
    FULLY_CONNECTED of layer 'encoder/head'

    Attributes:
        op: Name of the op.
        layer: Path of the layer; None if the layer is not known.
    """

    op: str
    layer: str | None

    def __str__(self) -> str:
        return f"{self.op} of layer '{self.layer}'" if self.layer else self.op


@dataclass(frozen=True)
class Inspection(Shown):
    """The content of a .tflite file, without the values of its weights.

    `gzip_bytes` and `load_error` take longer than all the rest together, so they are found out from
    the file when they are first asked for: it must still be there.

    >>> from tfcompress import converters
    >>> from tfcompress.edge.system.tflite import PROBE  # adds 1 to rows of four numbers
    >>> found = converters.inspect(PROBE)
    >>> found.ops, found.bytes, found.gzip_bytes < found.bytes, found.load_error
    ({'ADD': 1}, 516, True, None)

    Attributes:
        path: The file.
        bytes: Size of the whole file, as it ships.
        version: Version of the schema.
        description: Name of the program that wrote the file.
        ops: Op name -> how many ops, the most frequent first, over all subgraphs.
        custom_ops: Names of those ops that are not TFLite's own.
        nodes: The ops in the order of execution.
        tensors: All tensors of all subgraphs.
        subgraphs: The main graph, then the bodies of loops and branches.
        signatures: The ways to call the file.
        constant_bytes: Size of all buffers, each counted once.
        buffers: Number of buffers.
        metadata: Name of each metadata entry -> its size in bytes.
        timeout: Seconds that the runtime gets to load the file; None for no limit.
    """

    path: Path
    bytes: int
    version: int
    description: str
    ops: dict[str, int]
    custom_ops: tuple[str, ...]
    nodes: tuple[Node, ...]
    tensors: tuple[Tensor, ...]
    subgraphs: tuple[Subgraph, ...]
    signatures: tuple[FileSignature, ...]
    constant_bytes: int
    buffers: int
    metadata: dict[str, int]
    timeout: float | None = field(default=60.0, repr=False, compare=False)

    @classmethod
    def from_description(
        cls, path: Path, read: Mapping[str, Any], timeout: float | None = 60.0
    ) -> Inspection:
        """Build an inspection from what was read.

        Args:
            path: The file.
            read: What `jobs.read.describe` returned; with "load_error" if that is known already.
            timeout: Seconds that the runtime gets to load the file; None for no limit. Defaults to
                60.

        Returns:
            The inspection.
        """
        parts = {key: value for key, value in read.items() if key != "load_error"}
        parts["nodes"] = tuple(
            Node(**{key: _frozen(value) for key, value in n.items()}) for n in read["nodes"]
        )
        parts["tensors"] = tuple(
            Tensor(**{key: _frozen(value) for key, value in t.items()}) for t in read["tensors"]
        )
        parts["subgraphs"] = tuple(
            Subgraph(tuple(s["inputs"]), tuple(s["outputs"]), s["name"]) for s in read["subgraphs"]
        )
        parts["signatures"] = tuple(FileSignature(**s) for s in read["signatures"])
        parts["custom_ops"] = tuple(read["custom_ops"])
        found = cls(path=path, **parts, timeout=timeout)
        if "load_error" in read:
            vars(found)["load_error"] = read["load_error"]  # where the cached property keeps it
        return found

    @functools.cached_property
    def gzip_bytes(self) -> int:
        """Return the size of the file after gzip, as a download or an app package holds it."""
        return gzip_bytes(self.path, self.bytes)

    @functools.cached_property
    def load_error(self) -> str | None:
        """Return why the runtime does not load the file, such as an unknown op; None if it does.

        A child process loads it. If that dies or takes longer than `timeout`, this is the reason.
        """
        return load_error(self.path, self.timeout)

    @property
    def constants(self) -> tuple[Tensor, ...]:
        """Return the stored tensors, the largest first."""
        return tuple(sorted((t for t in self.tensors if t.constant), key=lambda t: -t.bytes))

    @property
    def zeros(self) -> float:
        """Return the share of zeros among the stored kernels, without biases and shapes."""
        weights = [
            t for t in self.constants if len(t.shape) > 1 and t.dtype not in ("int32", "int64")
        ]
        counts = [math.prod(d or 1 for d in t.shape) for t in weights]
        zeros = sum(n * (t.sparsity or 0.0) for n, t in zip(counts, weights, strict=True))
        return zeros / sum(counts) if weights else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for `json.dumps`; without `gzip_bytes` and `load_error`."""
        plain = {**asdict(self), "path": str(self.path)}
        del plain["timeout"]
        return plain

    def __str__(self) -> str:
        head = (
            f"{self.path.name}: {self.bytes:,} bytes, {self.constant_bytes:,} of them constants, "
            f"{len(self.nodes)} ops, schema version {self.version}"
        )
        return as_text(head, *_tables(self), width=120)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _tables(found: Inspection) -> Iterator[Any]:
    """Yield a table for each kind of content that the file has."""
    yield _signatures(found)
    if len(found.subgraphs) > 1:
        yield _subgraphs(found)
    ops = new_table(["Op", "Count"], numbers=["Count"], title="Ops")
    for op, count in found.ops.items():
        ops.add_row(f"{op} (custom)" if op in found.custom_ops else op, str(count))
    yield ops
    if found.metadata:
        metadata = new_table(["Name", "Bytes"], numbers=["Bytes"], title="Metadata")
        for name, size in found.metadata.items():
            metadata.add_row(name, f"{size:,}")
        yield metadata
    yield _constants(found)


def _signatures(found: Inspection) -> Any:
    table = new_table(
        ["Signature", "", "Name", "Dtype", "Shape", "Scale", "Zero point"],
        numbers=["Scale", "Zero point"],
        title="Signatures",
    )
    for signature in found.signatures:
        for side, names in (("in", signature.inputs), ("out", signature.outputs)):
            for name, place in names.items():
                tensor = found.tensors[place]
                table.add_row(
                    signature.key,
                    side,
                    name,
                    tensor.dtype,
                    _shape(tensor.shape),
                    *_quantization(tensor),
                )
    if not found.signatures:
        for graph in found.subgraphs[:1]:
            for side, places in (("in", graph.inputs), ("out", graph.outputs)):
                for tensor in (found.tensors[place] for place in places):
                    shape, steps = _shape(tensor.shape), _quantization(tensor)
                    table.add_row("none", side, tensor.name, tensor.dtype, shape, *steps)
    return table


def _subgraphs(found: Inspection) -> Any:
    numbers = ["Number", "Ops", "Tensors", "Inputs", "Outputs"]
    table = new_table(["Number", "Name", *numbers[1:]], numbers=numbers, title="Subgraphs")
    for index, graph in enumerate(found.subgraphs):
        table.add_row(
            str(index),
            graph.name,
            str(sum(node.subgraph == index for node in found.nodes)),
            str(sum(tensor.subgraph == index for tensor in found.tensors)),
            str(len(graph.inputs)),
            str(len(graph.outputs)),
        )
    return table


def _constants(found: Inspection) -> Any:
    table = new_table(
        ["Constant", "Dtype", "Shape", "Scales", "Zeros", "Bytes"],
        numbers=["Scales", "Zeros", "Bytes"],
        title="Constants",
        longest=60,
    )
    for tensor in found.constants:
        table.add_row(
            tensor.name,
            tensor.dtype,
            _shape(tensor.shape),
            str(len(tensor.scales) or ""),
            "" if tensor.sparsity is None else f"{tensor.sparsity:.1%}",
            f"{tensor.bytes:,}",
        )
    return table


def _shape(shape: tuple[int | None, ...]) -> str:
    return " x ".join("?" if d is None else str(d) for d in shape) or "scalar"


def _quantization(tensor: Tensor) -> tuple[str, str]:
    if len(tensor.scales) != 1:
        return (f"{len(tensor.scales)} scales" if tensor.scales else "", "")
    return f"{tensor.scales[0]:.6g}", str(tensor.zero_points[0])
