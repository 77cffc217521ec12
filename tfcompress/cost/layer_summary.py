"""`Summary`: what the layers of a model cost, and the table of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from rich.table import Table

from tfcompress.edge.arguments import check_integer
from tfcompress.edge.shown import Shown
from tfcompress.model.tables import as_text, new_table, scaled

from .macs import add_macs

__all__ = ["LayerSummary", "Summary", "add_up", "near_zero_note"]


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """The costs of one layer.

    Layers inside it count only if `Summary.grouped` made it.

    Attributes:
        path: Names from the model down to the layer: `"backbone/block_1/conv"`. Weights that
            belong to the model itself have the model's name.
        type: Class name.
        parameters: Number of weights, trainable or not; weights that layers share count once.
        zeros: How many of them are exactly zero, biases included.
        macs: Multiply-accumulates per sample, over all calls of the layer; None if unknown.
        bytes: Bytes of the weights in their present dtype.
        bits: Widths that the weights of kernels are computed with, in ascending order: 8 in a
            quantization-aware layer, else that of their dtype. Empty without kernels.
        near_zeros: Number of weights of kernels that are not zero, but at most 2**-24 of the
            largest weight of their kernel, so that float32 rounds them away in a sum with it.
        dead_channels: Number of output channels whose weights are all zero or near zero.
    """

    path: str
    type: str
    parameters: int
    zeros: int
    macs: int | None
    bytes: int
    bits: tuple[int, ...] = ()
    near_zeros: int = 0
    dead_channels: int = 0

    @property
    def sparsity(self) -> float:
        """Return the share of the parameters that are zero, 0 to 1."""
        return self.zeros / self.parameters if self.parameters else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and `sparsity`, ready for JSON."""
        return {**dataclasses.asdict(self), "sparsity": self.sparsity}


@dataclasses.dataclass(frozen=True)
class Summary(Shown):
    """The costs of a model. Printing it gives a table.

    >>> import keras
    >>> from tfcompress import summary
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")])
    >>> head = summary(model).layers[-1]
    >>> head.path, head.parameters, head.macs
    ('head', 36, 32)

    Attributes:
        name: Name of the model.
        layers: One `LayerSummary` for each layer, however deep, in the order of the model.
    """

    name: str
    layers: tuple[LayerSummary, ...]

    @property
    def total(self) -> LayerSummary:
        """Return the costs of all layers together."""
        return add_up(self.name, "Total", self.layers)

    def grouped(self, depth: int = 1) -> tuple[LayerSummary, ...]:
        """Return the layers down to a depth, each with the costs of all layers inside it.

        Args:
            depth: 1 (the default) for the layers of the model, 2 for the layers inside those, and
                so on.

        Returns:
            Tuple of `LayerSummary`.
        """
        check_integer("depth", depth, 1)
        groups: dict[str, list[LayerSummary]] = {}
        for layer in self.layers:
            groups.setdefault("/".join(layer.path.split("/")[:depth]), []).append(layer)
        return tuple(add_up(path, group[0].type, group) for path, group in groups.items())

    def to_dict(self) -> dict[str, Any]:
        """Return `name`, `total` and `layers`, ready for JSON."""
        return {
            "name": self.name,
            "total": self.total.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
        }

    def table(self, depth: int = 1, max_rows: int = 40) -> Table:
        """Return a table of the layers that have parameters or multiply-accumulates.

        Args:
            depth: 1 (the default) for the layers of the model, 2 for the layers inside those, and
                so on.
            max_rows: With more rows than this, the smallest layers share one. Defaults to 40.

        Returns:
            `rich.table.Table`.
        """
        check_integer("max_rows", max_rows, 1)
        total = self.total
        known_macs = sum(layer.macs or 0 for layer in self.layers)

        def share(row: LayerSummary) -> float:
            if row.macs is None:
                return 1.0
            return max(row.parameters / max(total.parameters, 1), row.macs / max(known_macs, 1))

        rows = [row for row in self.grouped(depth) if row.parameters or row.macs != 0]
        largest = sorted(rows, key=share, reverse=True)[:max_rows]
        shown = [row for row in rows if row in largest]
        if rest := [row for row in rows if row not in largest]:
            shown.append(add_up(f"{len(rest)} smaller layers", "", rest))
        unknown = " (?: unknown)" if total.macs is None else ""
        # In a float model, the widths say nothing new.
        names = ("Parameters", "Zeros", "MACs", "Memory", "Bits")[: 5 if 8 in total.bits else 4]
        table = new_table(
            ("Layer", "Type", *names),
            numbers=names,
            total=("Total", "", *_cells(total)[: len(names)]),
            title=self.name,
            caption=f"MACs: multiply-accumulates per sample{unknown}. Memory: of the weights as "
            f"they are now, not the size of a .tflite.{near_zero_note(total)}",
        )
        for row in shown:
            table.add_row(row.path, row.type, *_cells(row)[: len(names)])
        return table

    def __rich__(self) -> Table:
        return self.table()

    def __str__(self) -> str:
        return as_text(self.table(), width=80)


def add_up(path: str, type_: str, layers: Iterable[LayerSummary]) -> LayerSummary:
    """Return the costs of several layers as one `LayerSummary` with the given path and type."""
    layers = list(layers)
    return LayerSummary(
        path,
        type_,
        parameters=sum(layer.parameters for layer in layers),
        zeros=sum(layer.zeros for layer in layers),
        macs=add_macs(layer.macs for layer in layers),
        bytes=sum(layer.bytes for layer in layers),
        bits=tuple(sorted({width for layer in layers for width in layer.bits})),
        near_zeros=sum(layer.near_zeros for layer in layers),
        dead_channels=sum(layer.dead_channels for layer in layers),
    )


def near_zero_note(total: LayerSummary) -> str:
    """Return what a table says of weights near zero and of dead channels; empty without any."""
    note = ""
    if total.near_zeros:
        share = total.near_zeros / total.parameters
        note += f" Besides the zeros, {share:.1%} of the parameters are lost in rounding."
    if total.dead_channels:
        note += (
            f" All weights of {total.dead_channels:,} channels are zero or lost in rounding: "
            "prune_channels(model, dead=True) cuts those that change no output."
        )
    return note


def _cells(layer: LayerSummary) -> tuple[str, str, str, str, str]:
    return (
        f"{layer.parameters:,}",
        f"{layer.sparsity:.1%}" if layer.parameters else "",
        "?" if layer.macs is None else scaled(layer.macs),
        scaled(layer.bytes, "B"),
        ", ".join(map(str, layer.bits)),
    )
