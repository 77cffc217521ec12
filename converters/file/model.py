"""The content of a .tflite file as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfcompress.model.tables import as_text, new_table


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
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


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
class Inspection:
    """The content of a .tflite file, without the values of its weights.

    >>> import keras, tempfile
    >>> from tfcompress import converters
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = converters.convert(model, f"{folder}/tiny.tflite")
    ...     inspection = converters.inspect(file)
    >>> inspection.ops, inspection.load_error
    ({'FULLY_CONNECTED': 1}, None)

    Attributes:
        path: The file.
        bytes: Size of the whole file, as it ships.
        gzip_bytes: Size of the file after `gzip -9`, as a download or an app package holds it.
        version: Version of the schema.
        description: Name of the program that wrote the file.
        ops: Op name -> how many ops, the most frequent first, over all subgraphs.
        nodes: The ops in the order of execution.
        tensors: All tensors of all subgraphs.
        subgraphs: The main graph, then the bodies of loops and branches.
        signatures: The ways to call the file.
        constant_bytes: Size of all buffers, each counted once.
        buffers: Number of buffers.
        metadata: Name of each metadata entry -> its size in bytes.
        load_error: Why the runtime does not load the file, such as an unknown op; None if it does.
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
        """Build an inspection from what the child process read.

        Args:
            path: The file.
            read: The reply of `jobs.read`.

        Returns:
            The inspection.
        """
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
        """Return plain values, ready for `json.dumps`."""
        return {**asdict(self), "path": str(self.path)}

    def __str__(self) -> str:
        head = [
            f"{self.path.name}: {self.bytes:,} bytes ({self.gzip_bytes:,} after gzip), "
            f"{self.constant_bytes:,} of them constants, "
            f"{len(self.nodes)} ops, schema version {self.version}"
        ]
        if self.load_error:
            head.append(f"The runtime does not load it: {self.load_error}")
        return as_text(*head, *self._tables(), width=120)

    def _tables(self) -> list[Any]:
        border = new_table(
            ["", "Name", "Dtype", "Shape", "Scale", "Zero point"],
            numbers=["Scale", "Zero point"],
            title="Signatures",
        )
        for signature in self.signatures:
            for side, names in (("in", signature.inputs), ("out", signature.outputs)):
                for name, place in names.items():
                    tensor = self.tensors[place]
                    border.add_row(
                        side, name, tensor.dtype, _shape(tensor.shape), *_quantization(tensor)
                    )
        ops = new_table(["Op", "Count"], numbers=["Count"], title="Ops")
        for op, count in self.ops.items():
            ops.add_row(op, str(count))
        stored = new_table(
            ["Constant", "Dtype", "Shape", "Scales", "Zeros", "Bytes"],
            numbers=["Scales", "Zeros", "Bytes"],
            title="Constants",
        )
        stored.columns[0].overflow = "ellipsis"
        stored.columns[0].no_wrap = True
        stored.columns[0].max_width = 60
        for tensor in self.constants:
            stored.add_row(
                tensor.name,
                tensor.dtype,
                _shape(tensor.shape),
                str(len(tensor.scales) or ""),
                "" if tensor.sparsity is None else f"{tensor.sparsity:.1%}",
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
