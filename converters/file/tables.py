"""What `print` shows of a .tflite file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tfcompress.model.tables import new_table

if TYPE_CHECKING:
    from .model import Inspection, Tensor


def tables(found: Inspection) -> Iterator[Any]:
    """Yield a table for each kind of content that the file has.

    Args:
        found: The content of the file.

    Yields:
        Tables of signatures, subgraphs if there are several, ops, metadata and constants.
    """
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
    )
    table.columns[0].overflow = "ellipsis"
    table.columns[0].no_wrap = True
    table.columns[0].max_width = 60
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
