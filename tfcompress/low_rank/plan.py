"""What `factorize` is to do to each layer of a model, as an object that prints itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table

from tfcompress.model.tables import as_text

__all__ = ["LowRankLayer", "LowRankPlan"]


@dataclass(frozen=True)
class LowRankLayer:
    """What becomes of one layer.

    Attributes:
        path: Names from the model down to the layer: `"backbone/conv"`.
        type: Class name.
        kernel: Shape of its kernel; empty where it is left alone for its type.
        method: `"SVD"` or `"Tucker-2"`; "" where it is left alone.
        rank: One rank, or two of Tucker-2, of the inputs and of the outputs; empty where it is left
            alone.
        full_rank: The highest that there is.
        energy: Share of the kernel's squared singular values that is kept; with `refine`, at least.
        parameters: Its number of weights, and `parameters_after` of those in its place.
        parameters_after: See `parameters`.
        macs: Its multiply-accumulates per sample, over all calls, and `macs_after` of those in its
            place; None if unknown.
        macs_after: See `macs`.
        reason: Why it is left alone, or "".
    """

    path: str
    type: str
    kernel: tuple[int, ...]
    method: str
    rank: tuple[int, ...]
    full_rank: tuple[int, ...]
    energy: float
    parameters: int
    parameters_after: int
    macs: int | None
    macs_after: int | None
    reason: str


@dataclass(frozen=True)
class LowRankPlan:
    """What `factorize` is to do. Printing it gives a table.

    Attributes:
        model: Name of the model.
        rule: What ranks were chosen by, in words.
        layers: All with kernels, in the order of computation.
        parameters: Number of weights of the whole model.
        macs: Its multiply-accumulates per sample; None if unknown.
        refine: Sweeps of HOOI.
    """

    model: str
    rule: str
    layers: tuple[LowRankLayer, ...]
    parameters: int
    macs: int | None
    refine: int = 0

    @property
    def factorized(self) -> tuple[LowRankLayer, ...]:
        """The layers that are to be replaced."""
        return tuple(layer for layer in self.layers if not layer.reason)

    @property
    def left_alone(self) -> tuple[LowRankLayer, ...]:
        """The others; their `reason` says why."""
        return tuple(layer for layer in self.layers if layer.reason)

    @property
    def parameters_after(self) -> int:
        """Number of weights that the factorized model will have."""
        return self.parameters + sum(p.parameters_after - p.parameters for p in self.factorized)

    @property
    def macs_after(self) -> int | None:
        """Its multiply-accumulates; None if unknown."""
        total = self.macs
        for layer in self.factorized:
            if total is None or layer.macs is None or layer.macs_after is None:
                return None
            total += layer.macs_after - layer.macs
        return total

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        after = {"parameters_after": self.parameters_after, "macs_after": self.macs_after}
        return {**asdict(self), **after}

    def tables(self) -> list[Table]:
        """What is to be replaced, and what is left alone."""
        total = f"{self.model}: {_arrow(self.parameters, self.parameters_after)} parameters, "
        replaced = _table(f"{total}{_arrow(self.macs, self.macs_after)} MACs ({self.rule})")
        for name in ("Layer", "Type", "Kernel", "Rank", "Energy", "Parameters", "MACs"):
            right = name in ("Energy", "Parameters", "MACs")
            replaced.add_column(name, justify="right" if right else "left", overflow="fold")
        for layer in self.factorized:
            ranks_of = [
                f"{r} of {full}" for r, full in zip(layer.rank, layer.full_rank, strict=True)
            ]
            replaced.add_row(
                layer.path,
                layer.type,
                "x".join(map(str, layer.kernel)),
                ", ".join(ranks_of),
                f"{layer.energy:.1%}",
                _arrow(layer.parameters, layer.parameters_after),
                _arrow(layer.macs, layer.macs_after),
            )
        alone = _table("Left alone")
        for name in ("Layer", "Type", "Parameters", "Why"):
            alone.add_column(
                name, justify="right" if name == "Parameters" else "left", overflow="fold"
            )
        for layer in self.left_alone:
            alone.add_row(layer.path, layer.type, f"{layer.parameters:,}", layer.reason)
        return [replaced, alone] if self.left_alone else [replaced]

    def __rich__(self) -> Group:
        return Group(*self.tables())

    def __str__(self) -> str:
        return as_text(*self.tables(), width=100)


def _arrow(before: int | None, after: int | None) -> str:
    if before is None or after is None:
        return "?"
    return f"{before:,} -> {after:,}"


def _table(title: str) -> Table:
    return Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title=title, title_justify="left"
    )
