"""`Comparison`: what each layer costs in two models, before and after."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from difflib import SequenceMatcher
from typing import Any

from rich.table import Table

from tfcompress.edge.arguments import check_integer, refuse
from tfcompress.edge.shown import Shown
from tfcompress.model.tables import as_text, new_table, scaled

from .layer_summary import LayerSummary, Summary, near_zero_note

__all__ = ["Comparison", "LayerComparison"]

COUNTS = ("parameters", "macs", "bytes")


@dataclasses.dataclass(frozen=True)
class LayerComparison:
    """The costs of one layer before and after.

    Attributes:
        path: Names from the model down to the layer.
        before: Its costs in the first model; None if it is not there.
        after: Its costs in the second model; None if it is not there.
    """

    path: str
    before: LayerSummary | None
    after: LayerSummary | None

    @property
    def left(self) -> dict[str, float | None]:
        """Return after / before of `"parameters"`, `"macs"` and `"bytes"`.

        None where one of the two is missing or unknown, or where there was nothing before.
        """
        found: dict[str, float | None] = {}
        for count in COUNTS:
            before, after = (getattr(part, count, None) for part in (self.before, self.after))
            found[count] = after / before if before and after is not None else None
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and `left`, ready for JSON."""
        parts = {"before": self.before, "after": self.after}
        shown = {name: part and part.to_dict() for name, part in parts.items()}
        return {"path": self.path, **shown, "left": self.left}


@dataclasses.dataclass(frozen=True)
class Comparison(Shown):
    """The costs of two models, layer by layer. Printing it gives a table.

    Layers are matched by their paths. `tfcompress.summary(before, after)` makes a comparison of two
    models. For one model that training changes in place, take a summary before and one after:

    >>> import keras, tfcompress
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")])
    >>> before = tfcompress.summary(model)
    >>> tfcompress.prune_weights(model, sparsity=0.5)
    >>> total = Comparison(before, tfcompress.summary(model)).total
    >>> total.before.zeros, total.after.zeros, total.left["parameters"]
    (4, 20, 1.0)

    Attributes:
        before: The costs of the first model.
        after: The costs of the second model.
    """

    before: Summary
    after: Summary

    def __post_init__(self) -> None:
        for name, part in (("before", self.before), ("after", self.after)):
            if not isinstance(part, Summary):
                refuse(name, "a Summary, from tfcompress.summary(model)", part, TypeError)

    @property
    def total(self) -> LayerComparison:
        """Return the costs of all layers together."""
        return LayerComparison("Total", self.before.total, self.after.total)

    @property
    def layers(self) -> tuple[LayerComparison, ...]:
        """Return every layer of either model, at any depth, without the layers inside it."""
        return self._matched(self.before.layers, self.after.layers)

    def grouped(self, depth: int = 1) -> tuple[LayerComparison, ...]:
        """Return the layers down to a depth, each with the costs of all layers inside it.

        Args:
            depth: 1 (the default) for the layers of the models, 2 for the layers inside those, and
                so on.

        Returns:
            Tuple of `LayerComparison`.
        """
        check_integer("depth", depth, 1)
        return self._matched(self.before.grouped(depth), self.after.grouped(depth))

    def _matched(
        self, before: tuple[LayerSummary, ...], after: tuple[LayerSummary, ...]
    ) -> tuple[LayerComparison, ...]:
        # The models' own weights have the models' names, which may differ.
        same_name = {self.before.name: self.after.name}
        first = {same_name.get(layer.path, layer.path): layer for layer in before}
        second = {layer.path: layer for layer in after}
        old, new = list(first), list(second)
        steps = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        paths = [path for _, a, b, c, d in steps for path in (*old[a:b], *new[c:d])]
        return tuple(
            LayerComparison(path, first.get(path), second.get(path))
            for path in dict.fromkeys(paths)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return `before` and `after` (names), `total` and `layers`, ready for JSON."""
        return {
            "before": self.before.name,
            "after": self.after.name,
            "total": self.total.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
        }

    def table(self, depth: int = 1, max_rows: int = 40) -> Table:
        """Return a table of the layers that have parameters or multiply-accumulates.

        Args:
            depth: 1 (the default) for the layers of the models, 2 for the layers inside those, and
                so on.
            max_rows: With more rows than this, the smallest layers share one. Defaults to 40.

        Returns:
            `rich.table.Table`.
        """
        check_integer("max_rows", max_rows, 1)
        rows = [row for row in self.grouped(depth) if _costs(row.before) or _costs(row.after)]
        largest = _largest(rows, max_rows)
        shown = [row for row in rows if row in largest]
        if rest := [row for row in rows if row not in largest]:
            shown.append(self._together(f"{len(rest)} smaller layers", rest))
        total = self.total
        before, after = self.before.name, self.after.name
        # In float models, the widths say nothing new.
        widths = {*self.before.total.bits, *self.after.total.bits}
        names = ("Parameters", "Zeros", "MACs", "Memory", "Bits")[: 5 if 8 in widths else 4]
        table = new_table(
            ("Layer", *names),
            numbers=names,
            wrap=True,
            total=("Total", *_cells(total)[: len(names)]),
            title=before if before == after else f"{before} -> {after}",
            caption="Before -> after (share left); one number: the same; -: not there; ?: unknown. "
            "MACs: multiply-accumulates per sample. Memory: of the weights as they are now, not "
            f"the size of a .tflite.{near_zero_note(self.after.total)}",
        )
        for row in shown:
            table.add_row(row.path, *_cells(row)[: len(names)])
        return table

    def _together(self, path: str, rows: list[LayerComparison]) -> LayerComparison:
        before = tuple(row.before for row in rows if row.before is not None)
        after = tuple(row.after for row in rows if row.after is not None)
        return LayerComparison(
            path,
            dataclasses.replace(self.before, layers=before).total if before else None,
            dataclasses.replace(self.after, layers=after).total if after else None,
        )

    def __rich__(self) -> Table:
        return self.table()

    def __str__(self) -> str:
        return as_text(self.table(), width=110)


def _costs(layer: LayerSummary | None) -> bool:
    return layer is not None and (layer.parameters > 0 or layer.macs != 0)


def _largest(rows: list[LayerComparison], number: int) -> list[LayerComparison]:
    """Return the largest rows by their largest share of parameters or multiply-accumulates."""
    parts = [part for row in rows for part in (row.before, row.after) if part is not None]
    parameters = max((part.parameters for part in parts), default=0) or 1
    macs = max((part.macs or 0 for part in parts), default=0) or 1

    def size(part: LayerSummary | None) -> float:
        if part is None:
            return 0.0
        return max(part.parameters / parameters, 1.0 if part.macs is None else part.macs / macs)

    return sorted(rows, key=lambda row: max(size(row.before), size(row.after)), reverse=True)[
        :number
    ]


def _cells(row: LayerComparison) -> tuple[str, ...]:
    def cell(text: Callable[[LayerSummary], str], count: str = "") -> str:
        before, after = ("-" if p is None else text(p) for p in (row.before, row.after))
        if before == after:
            return before
        share = row.left.get(count)
        return f"{before} -> {after}" + ("" if share is None else f" ({share:.0%})")

    return (
        cell(lambda part: _compact(part.parameters), "parameters"),
        cell(lambda part: f"{part.sparsity:.1%}" if part.parameters else ""),
        cell(lambda part: "?" if part.macs is None else _compact(part.macs), "macs"),
        cell(lambda part: _compact(part.bytes) + "B"),
        cell(lambda part: ", ".join(map(str, part.bits))),
    )


def _compact(number: int) -> str:
    return scaled(number).replace(" ", "")
