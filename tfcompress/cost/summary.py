"""What a model costs: parameters, zeros, multiply-accumulates and bytes, layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, overload

import keras
import numpy as np
from rich import box
from rich.table import Table

from tfcompress.model.checks import check_built
from tfcompress.model.kernels import is_kernel
from tfcompress.model.layers import own_weights, walk
from tfcompress.model.quantized import LayerQuantizer, TensorQuantizer
from tfcompress.model.tables import as_text, scaled

from .comparison import Comparison
from .macs import count_macs

__all__ = ["LayerSummary", "Summary", "summary"]


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """What one layer costs, the layers inside it left out unless it comes from `Summary.grouped`.

    Attributes:
        path: Names from the model down to the layer: `"backbone/block_1/conv"`. What the model
            itself holds stands under the model's name.
        type: Class name.
        parameters: Number of weights, trainable or not; what layers share counts once.
        zeros: How many of them are exactly zero, biases included.
        macs: Multiply-accumulates per sample, over all calls of the layer; None if unknown.
        bytes: Memory of the weights in their present dtype.
        bits: Widths that the weights of kernels are computed with, in ascending order: 8 in a
            quantization-aware layer, else that of their dtype. Empty without kernels.
    """

    path: str
    type: str
    parameters: int
    zeros: int
    macs: int | None
    bytes: int
    bits: tuple[int, ...] = ()

    @property
    def sparsity(self) -> float:
        """Share of the parameters that are zero, 0 to 1."""
        return self.zeros / self.parameters if self.parameters else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The fields and `sparsity`, ready for JSON."""
        return {**dataclasses.asdict(self), "sparsity": self.sparsity}


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a model costs. Printing it gives a table.

    Attributes:
        name: Name of the model.
        layers: One `LayerSummary` for each layer, however deep, in the order of the model.
    """

    name: str
    layers: tuple[LayerSummary, ...]

    @property
    def total(self) -> LayerSummary:
        """Everything added up."""
        return _sum(self.name, "Total", self.layers)

    def grouped(self, depth: int = 1) -> tuple[LayerSummary, ...]:
        """The layers down to a depth, each with all that is inside it.

        Args:
            depth: 1 for the layers of the model, 2 for theirs, and so on.

        Returns:
            Tuple of `LayerSummary`.
        """
        groups: dict[str, list[LayerSummary]] = {}
        for layer in self.layers:
            groups.setdefault("/".join(layer.path.split("/")[:depth]), []).append(layer)
        return tuple(_sum(path, group[0].type, group) for path, group in groups.items())

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON: `name`, `total`, `layers`."""
        return {
            "name": self.name,
            "total": self.total.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
        }

    def table(self, depth: int = 1, max_rows: int = 40) -> Table:
        """A table of the layers that have parameters or multiply-accumulates.

        Args:
            depth: As in `grouped`.
            max_rows: With more rows than this, the smallest layers share one.

        Returns:
            `rich.table.Table`.
        """
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
            shown.append(_sum(f"{len(rest)} smaller layers", "", rest))
        unknown = " (?: unknown)" if total.macs is None else ""
        table = Table(
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
            show_footer=True,
            title=self.name,
            caption=f"MACs: multiply-accumulates per sample{unknown}. Memory: of the weights as "
            "they are now, not the size of a .tflite.",
        )
        table.add_column("Layer", "Total", overflow="fold")
        table.add_column("Type", no_wrap=True, max_width=18)
        # Where all is float, the widths say nothing new.
        names = ("Parameters", "Zeros", "MACs", "Memory", "Bits")[: 5 if 8 in total.bits else 4]
        for name, footer in zip(names, _cells(total), strict=False):
            table.add_column(name, footer, justify="right", no_wrap=True)
        for row in shown:
            table.add_row(row.path, row.type, *_cells(row)[: len(names)])
        return table

    def __rich__(self) -> Table:
        return self.table()

    def __str__(self) -> str:
        return as_text(self.table(), width=80)


@overload
def summary(model: keras.Model, *, inputs: Any = None) -> Summary: ...
@overload
def summary(model: keras.Model, after: keras.Model, *, inputs: Any = None) -> Comparison: ...
def summary(
    model: keras.Model, after: keras.Model | None = None, *, inputs: Any = None
) -> Summary | Comparison:
    """Sum up what a model costs, layer by layer; or what two models cost, side by side.

    Parameters, zeros and bytes are read from the weights as they are now; the state of optimizers,
    metrics and random generators is no part of them. Multiply-accumulates are counted in the
    model's graph, as `tfcompress.cost.macs.count_macs` says; no layer is run. A quantization-aware
    model is shown as the model that it was made of, in the same layers and numbers: the ranges that
    it tracks are no weights.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")])
    >>> total = summary(model).total
    >>> total.parameters, total.zeros, total.macs, total.bytes
    (36, 4, 32, 144)

    >>> wide = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, name="head")])
    >>> summary(wide, model).total.left
    {'parameters': 0.25, 'macs': 0.25, 'bytes': 0.25}

    Args:
        model: A built model.
        after: Another, to compare with: what became of the first.
        inputs: What the model is called with, for sizes that the model itself does not know:
            arrays, or `keras.KerasTensor`s, with the batch first; a tuple is several arguments.

    Returns:
        A `Summary`; of two models a `Comparison`. A layer whose sizes are not known has
        `macs=None`.

    Raises:
        TypeError: If `model` or `after` is no Keras model.
        ValueError: If one is not built, or cannot be traced.
    """
    if after is None:
        return _summarize(model, inputs)
    if not isinstance(after, keras.Model):
        raise TypeError(
            "The second model must be a keras.Model. (What a model is called with goes by name: "
            f"summary(model, inputs=...).) Received: after={after!r}"
        )
    return Comparison(_summarize(model, inputs), _summarize(after, inputs))


def _summarize(model: keras.Model, inputs: Any) -> Summary:
    check_built(model)
    macs = count_macs(model, inputs)
    counted: set[int] = set()
    layers = []
    for path, lineage in walk(model):
        layer = lineage[-1] if lineage else model
        if isinstance(layer, TensorQuantizer | LayerQuantizer):
            continue
        wrapper = next((part for part in lineage if isinstance(part, LayerQuantizer)), None)
        if wrapper is not None:
            path = "/".join(part.name for part in lineage if part is not wrapper)
        own = {id(weight): weight for weight in own_weights(layer) if id(weight) not in counted}
        counted.update(own)
        arrays = [keras.ops.convert_to_numpy(weight) for weight in own.values()]
        counts = [macs.get(layer, 0)]
        if wrapper is not None and layer is wrapper.layer:
            counts.append(macs.get(wrapper, 0))  # what its composite computes in the layer's stead
        layers.append(
            LayerSummary(
                path,
                type(layer).__name__,
                parameters=sum(array.size for array in arrays),
                zeros=sum(array.size - int(np.count_nonzero(array)) for array in arrays),
                macs=_total(counts),
                bytes=sum(array.nbytes for array in arrays),
                bits=_bits(layer, own.values(), wrapper),
            )
        )
    return Summary(model.name, tuple(layers))


def _sum(path: str, type_: str, layers: Iterable[LayerSummary]) -> LayerSummary:
    layers = list(layers)
    return LayerSummary(
        path,
        type_,
        parameters=sum(layer.parameters for layer in layers),
        zeros=sum(layer.zeros for layer in layers),
        macs=_total([layer.macs for layer in layers]),
        bytes=sum(layer.bytes for layer in layers),
        bits=tuple(sorted({width for layer in layers for width in layer.bits})),
    )


def _total(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _bits(
    layer: keras.layers.Layer, own: Iterable[keras.Variable], wrapper: LayerQuantizer | None
) -> tuple[int, ...]:
    int8 = wrapper is not None and wrapper.why_float() is None
    found = [weight for weight in own if is_kernel(layer, weight)]
    widths = {8 if int8 else 8 * np.dtype(weight.dtype).itemsize for weight in found}
    return tuple(sorted(widths))


def _cells(layer: LayerSummary) -> tuple[str, str, str, str, str]:
    return (
        f"{layer.parameters:,}",
        f"{layer.sparsity:.1%}" if layer.parameters else "",
        "?" if layer.macs is None else scaled(layer.macs),
        scaled(layer.bytes, "B"),
        ", ".join(map(str, layer.bits)),
    )
