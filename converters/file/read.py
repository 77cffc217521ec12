"""What is in a .tflite file: ops, tensors, types, scales, zeros, bytes."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfcompress.converters.jobs.run import ChildError, run
from tfcompress.converters.xnnpack.sparse_check import GraphForm, graph_form
from tfcompress.edge.errors import ModelFileError
from tfcompress.edge.ops import MAC_OPS
from tfcompress.edge.system.tflite import check
from tfcompress.model.tables import as_text


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file.

    Attributes:
        name: As stored; carries the path of the Keras layer that it comes from.
        subgraph: Number of the subgraph that holds it; 0 is the main one.
        dtype: "float32", "int8", "int4" ...
        shape: None stands for a free dimension.
        scales: Step of a quantized tensor: one, or one per index along `axis`. Empty if not
            quantized.
        zero_points: The stored value that means 0.0; as many as `scales`.
        axis: Dimension that `scales` run along; None with one scale or none.
        constant: True for what is stored in the file: weights, shapes, tables.
        buffer: Number of the buffer that holds its data; two tensors may share one.
        bytes: Stored bytes of a constant, else the size in memory, free dimensions taken as 1.
        sparsity: Share of a constant's elements that are exactly zero, else None.
        values: Of a small integer constant, such as axes or paddings, flat; else None.
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
        """Whether the integers stand for real numbers."""
        return bool(self.scales)


@dataclass(frozen=True)
class Node:
    """One op of the graph.

    Attributes:
        op: Name of the op.
        inputs: Places in `Inspection.tensors`.
        outputs: Places in `Inspection.tensors`.
        subgraph: Number of the subgraph that holds it.
        options: Numbers and words by their names in the schema, such as "stride_w": 2 and
            "padding": "SAME".
    """

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    subgraph: int
    options: dict[str, Any]


@dataclass(frozen=True)
class FileSignature:
    """A way to call the file: input and output names -> places in `Inspection.tensors`."""

    key: str
    inputs: dict[str, int]
    outputs: dict[str, int]


@dataclass(frozen=True)
class Subgraph:
    """Where a graph begins and ends: places in `Inspection.tensors`."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Inspection:
    """A .tflite file, read.

    Attributes:
        path: Of the file.
        bytes: Of the whole file, as it ships.
        gzip_bytes: Of the same after `gzip -9`, as a download or an app package holds it.
        version: Of the schema.
        description: What wrote it.
        ops: Op name -> how many, the most frequent first, over all subgraphs.
        nodes: The ops in the order of execution.
        tensors: All tensors of all subgraphs.
        subgraphs: The main graph, then the bodies of loops and branches.
        signatures: The ways to call it.
        constant_bytes: Bytes of all buffers, each counted once.
        buffers: How many of these there are.
        metadata: Name -> bytes.
        load_error: Why the runtime does not load the file, such as an op that it does not know;
            None when it does.
    """

    path: Path
    bytes: int
    gzip_bytes: int
    version: int
    description: str
    ops: dict[str, int]
    nodes: tuple[Node, ...]
    tensors: tuple[Tensor, ...]
    subgraphs: tuple[Subgraph, ...]
    signatures: tuple[FileSignature, ...]
    constant_bytes: int
    buffers: int
    metadata: dict[str, int]
    load_error: str | None

    @classmethod
    def from_description(cls, path: Path, read: Mapping[str, Any]) -> Inspection:
        """Put together what the child process read."""
        parts = dict(read)
        parts["nodes"] = tuple(
            Node(**{key: _frozen(value) for key, value in n.items()}) for n in read["nodes"]
        )
        parts["tensors"] = tuple(
            Tensor(**{key: _frozen(value) for key, value in t.items()}) for t in read["tensors"]
        )
        parts["subgraphs"] = tuple(
            Subgraph(tuple(s["inputs"]), tuple(s["outputs"])) for s in read["subgraphs"]
        )
        parts["signatures"] = tuple(FileSignature(**s) for s in read["signatures"])
        return cls(path=path, **parts)

    @property
    def constants(self) -> tuple[Tensor, ...]:
        """What is stored in the file, the largest first."""
        return tuple(sorted((t for t in self.tensors if t.constant), key=lambda t: -t.bytes))

    @property
    def zeros(self) -> float:
        """Share of the stored weights that are exactly zero: kernels, without biases and shapes."""
        weights = [
            t for t in self.constants if len(t.shape) > 1 and t.dtype not in ("int32", "int64")
        ]
        counts = [math.prod(d or 1 for d in t.shape) for t in weights]
        zeros = sum(n * (t.sparsity or 0.0) for n, t in zip(counts, weights, strict=True))
        return zeros / sum(counts) if weights else 0.0

    @property
    def form(self) -> GraphForm:
        """What becomes of it on Arm when its weights are stored sparse."""
        return graph_form(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for `json.dumps`."""
        return {**asdict(self), "path": str(self.path), "form": self.form.kind}

    def __str__(self) -> str:
        head = [
            f"{self.path.name}: {self.bytes:,} bytes ({self.gzip_bytes:,} after gzip), "
            f"{self.constant_bytes:,} of them constants, "
            f"{len(self.nodes)} ops, schema version {self.version}"
        ]
        if self.load_error:
            head.append(f"The runtime does not load it: {self.load_error}")
        if any(node.op in MAC_OPS and self.tensors[node.outputs[0]].dtype == "float32"
               for node in self.nodes):  # fmt: skip
            head.append(f"Form of the graph: {self.form.kind} (tfcompress lint explains)")
        return as_text(*head, *self._tables(), width=120)

    def _tables(self) -> list[Any]:
        from rich.table import Table

        border = Table("", "name", "dtype", "shape", "scale", "zero point", title="Signatures")
        for signature in self.signatures:
            for side, names in (("in", signature.inputs), ("out", signature.outputs)):
                for name, place in names.items():
                    tensor = self.tensors[place]
                    border.add_row(
                        side, name, tensor.dtype, _shape(tensor.shape), *_quantization(tensor)
                    )
        ops = Table("op", "count", title="Ops")
        for op, count in self.ops.items():
            ops.add_row(op, str(count))
        stored = Table("constant", "dtype", "shape", "scales", "zeros", "bytes", title="Constants")
        stored.columns[0].overflow = "ellipsis"
        stored.columns[0].no_wrap = True
        stored.columns[0].max_width = 60
        for tensor in self.constants:
            zeros = "" if tensor.sparsity is None else f"{tensor.sparsity:.1%}"
            scales = str(len(tensor.scales) or "")
            stored.add_row(
                tensor.name,
                tensor.dtype,
                _shape(tensor.shape),
                scales,
                zeros,
                f"{tensor.bytes:,}",
            )
        return [border, ops, stored]


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _shape(shape: tuple[int | None, ...]) -> str:
    return " x ".join("?" if d is None else str(d) for d in shape) or "scalar"


def _quantization(tensor: Tensor) -> tuple[str, str]:
    if len(tensor.scales) != 1:
        return (f"{len(tensor.scales)} scales" if tensor.scales else "", "")
    return f"{tensor.scales[0]:.6g}", str(tensor.zero_points[0])


def inspect(path: str | os.PathLike[str], timeout: float | None = 60.0) -> Inspection:
    """Read a .tflite file.

    It is read in a child process, which loads it into the runtime too, so that a corrupt file
    gives an error and never takes your process down. TensorFlow is not imported.

    Example:
    >>> import keras, tempfile
    >>> from tfcompress import converters
    >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="y")])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = converters.inspect(converters.convert(model, f"{folder}/tiny.tflite"))
    >>> found.ops
    {'FULLY_CONNECTED': 1}
    >>> found.signatures[0].inputs
    {'x': 0}

    Args:
        path: The file.
        timeout: Seconds after which reading is given up; None for never. Defaults to 60.

    Returns:
        What is in it.

    Raises:
        ModelFileError: The file is missing, empty, truncated, corrupt, or something else.
    """
    file = check(path)
    with tempfile.TemporaryDirectory(prefix="tfcompress-") as folder:
        request = {"path": str(file.resolve())}
        try:
            read = run("jobs.read", request, Path(folder), timeout)
        except ChildError as error:
            if "No module named" in error.log:
                raise ImportError(
                    "Reading .tflite files needs ai-edge-litert. "
                    "Install it with: pip install 'tfcompress[tensorflow]'"
                ) from error
            raise ModelFileError(
                f"{file}: starts like a .tflite file but cannot be read, so it is probably "
                f"truncated or corrupt. Reading it {error}"
            ) from error
    if "invalid" in read:
        raise ModelFileError(
            f"{file}: starts like a .tflite file, but its content does not fit together; it is "
            f"truncated or corrupt. The runtime says: {read['invalid']}"
        )
    return Inspection.from_description(file, read)
