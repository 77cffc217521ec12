"""`low_rank_plan`: which rank each layer gets, and why some get none, as an object that prints."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import keras
from rich.console import Group
from rich.table import Table

from tfcompress.cost import budgets
from tfcompress.cost.budgets import Budget
from tfcompress.cost.macs import add_macs, count_macs
from tfcompress.edge.arguments import check_integer, check_number
from tfcompress.edge.shown import Shown
from tfcompress.model.filters import Filters
from tfcompress.model.layers import walk
from tfcompress.model.tables import as_text, new_table

from . import factors, search
from .candidates import Candidate, Counts, candidates, factorable

__all__ = ["LowRankLayer", "LowRankPlan", "low_rank_plan"]

_FASTER = 0.7
"""The share of MACs from which files were faster: at 0.75 float 1.1x and int8 1.0x, at 0.5 1.7x and
1.3x (a residual net of seven convolutions, XNNPACK, one thread)."""
_MOST_SWEEPS = 1000  # HOOI converges in a few.


@dataclass(frozen=True)
class LowRankLayer:
    """What becomes of one layer.

    Attributes:
        path: Names from the model down to the layer: `"backbone/conv"`.
        type: Class name.
        kernel: Shape of the kernel; empty if the layer is left alone for its type.
        method: `"SVD"` or `"Tucker-2"`; "" if the layer is left alone.
        rank: One rank, or two for Tucker-2, of the inputs and of the outputs; empty if the layer is
            left alone.
        full_rank: The highest rank, or the two highest ranks of Tucker-2.
        energy: Share of the kernel's squared singular values that is kept; with `refine`, at least.
        parameters: Number of weights of the layer.
        parameters_after: Number of weights of the layers in its place.
        macs: Multiply-accumulates of the layer per sample, over all calls; None if unknown.
        macs_after: Multiply-accumulates of the layers in its place; None if unknown.
        reason: Why the layer is left alone, or "".
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
class LowRankPlan(Shown):
    """The plan of `factorize` for each layer. Printing it gives a table.

    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32, name="head")])
    >>> plan = low_rank_plan(model, 0.75)
    >>> [(layer.path, layer.rank) for layer in plan.factorized], plan.left_alone
    ([('head', (8,))], ())

    Attributes:
        model: Name of the model.
        rule: What the ranks were chosen by, in words.
        layers: All layers with kernels, in the order of computation.
        parameters: Number of weights of the whole model.
        macs: Multiply-accumulates of the whole model per sample; None if unknown.
        refine: Sweeps of HOOI over what Tucker-2 begins with.
    """

    model: str
    rule: str
    layers: tuple[LowRankLayer, ...]
    parameters: int
    macs: int | None
    refine: int = 0

    @property
    def factorized(self) -> tuple[LowRankLayer, ...]:
        """Return the layers that will be replaced."""
        return tuple(layer for layer in self.layers if not layer.reason)

    @property
    def left_alone(self) -> tuple[LowRankLayer, ...]:
        """Return the layers that stay as they are; their `reason` says why."""
        return tuple(layer for layer in self.layers if layer.reason)

    @property
    def parameters_after(self) -> int:
        """Return the number of weights that the factorized model will have."""
        return self.parameters + sum(p.parameters_after - p.parameters for p in self.factorized)

    @property
    def macs_after(self) -> int | None:
        """Return the multiply-accumulates that the factorized model will have; None if unknown."""
        total = self.macs
        for layer in self.factorized:
            if total is None or layer.macs is None or layer.macs_after is None:
                return None
            total += layer.macs_after - layer.macs
        return total

    @property
    def warning(self) -> str:
        """Return why the plan is not likely to make a file faster, or ""."""
        macs, after = self.macs, self.macs_after
        if not self.factorized or macs is None or after is None or after <= _FASTER * macs:
            return ""
        return (
            f"{after / max(macs, 1):.0%} of the MACs are left, and each layer becomes two or "
            "three: this saves bytes, but hardly any time in float, and int8 may get slower. "
            "Measure it with edge.benchmark; fewer channels (prune_channels) save time."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        after = {
            "parameters_after": self.parameters_after,
            "macs_after": self.macs_after,
            "warning": self.warning,
        }
        return {**asdict(self), **after}

    def tables(self) -> list[Table]:
        """Return a table of the layers to replace, and one of the layers left alone."""
        total = f"{self.model}: {_arrow(self.parameters, self.parameters_after)} parameters, "
        numbers = ("Energy", "Parameters", "MACs")
        replaced = new_table(
            ("Layer", "Type", "Kernel", "Rank", *numbers),
            numbers=numbers,
            wrap=True,
            title=f"{total}{_arrow(self.macs, self.macs_after)} MACs ({self.rule})",
            caption=self.warning or None,
        )
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
        alone = new_table(
            ("Layer", "Type", "Parameters", "Why"), numbers=["Parameters"], title="Left alone"
        )
        for layer in self.left_alone:
            alone.add_row(layer.path, layer.type, f"{layer.parameters:,}", layer.reason)
        return [replaced, alone] if self.left_alone else [replaced]

    def __rich__(self) -> Group:
        return Group(*self.tables())

    def __str__(self) -> str:
        return as_text(*self.tables(), width=100)


def low_rank_plan(
    model: keras.Model,
    amount: float | Budget | None = None,
    *,
    energy: float | None = None,
    filters: Filters = None,
    round_to: int = 1,
    refine: int = 0,
) -> LowRankPlan:
    """Plan what `factorize` does to a model, and say why it leaves the other layers alone.

    Either `amount` or `energy` decides the ranks. Within a budget, all layers keep the same share
    of the energy, the highest that the budget allows. A layer is left alone where it would not get
    cheaper, in parameters and in multiply-accumulates. An `Embedding` has no multiply-accumulates:
    its parameters alone decide, and within `budgets.Macs` or `budgets.Latency` it is left alone.

    >>> x = keras.Input((64,))
    >>> head = keras.layers.Dense(32, name="head")
    >>> plan = low_rank_plan(keras.Model(x, head(x), name="net"), 0.75)
    >>> plan.layers[0].rank, plan.parameters, plan.parameters_after, plan.macs_after
    ((8,), 2080, 800, 768)

    Args:
        model: A built model; it is only read.
        amount: The share of each full rank to cut, from 0 to below 1; or what is to be left of the
            model: `budgets.Macs`, `budgets.Parameters` or `budgets.Latency`. Defaults to None.
        energy: Share of the squared singular values that each kernel keeps at least, above 0 to 1.
            The ranks are the cheapest that do. 1 drops no more than the rounding of float32 hides.
            Give this or `amount`. Defaults to None.
        filters: Layers that may be factorized: a regular expression searched in the layer's path, a
            list of layers or names, or a function of the layer. Defaults to all.
        round_to: Ranks are multiples of this, rounded up. Defaults to 1.
        refine: Sweeps of HOOI over what Tucker-2 begins with. Defaults to 0.

    Returns:
        A plan for `factorize`, which prints as a table.

    Raises:
        TypeError: If `model` is no Keras model, or an argument has a wrong type.
        ValueError: If an argument has a wrong value; if `filters` or one of its entries selects no
            layer with a kernel; if the model is not built, quantization-aware, or subclassed and
            cannot be read off its `call`; if a weight is NaN; or if a budget is impossible.

    Reference:
        Eckart & Young 1936; Tucker-2: Kim et al. 2016, https://arxiv.org/abs/1511.06530
    """
    _check_arguments(amount, energy, round_to, refine)
    model = factorable(model)
    macs = count_macs(model)
    by_macs = isinstance(amount, budgets.Macs | budgets.Latency)
    found = candidates(model, macs, filters, round_to, by_macs)
    rule = f"energy={energy:g}" if energy is not None else f"amount={amount}"
    if isinstance(amount, budgets.Latency):
        energy = search.energy_within_latency(model, found, amount, macs, refine)
    elif isinstance(amount, budgets.Macs | budgets.Parameters):
        energy = search.energy_within(model, found, amount, macs)
    if isinstance(amount, Budget):
        rule = f"{amount}: {energy:.2%} of the energy kept"
    if energy is not None:
        choices = search.by_energy(found, float(energy), "macs" if by_macs else "parameters")
    else:
        assert amount is not None and not isinstance(amount, Budget)
        choices = search.by_share(found, float(amount))
    rows = tuple(_row(one, choice, macs) for one, choice in zip(found, choices, strict=True))
    parameters = int(model.count_params())
    return LowRankPlan(model.name, rule, rows, parameters, add_macs(macs.values()), refine)


def _check_arguments(
    amount: float | Budget | None, energy: float | None, round_to: object, refine: object
) -> None:
    if (amount is None) == (energy is None):
        raise ValueError(
            "Give one of `amount`, a share or a budget, and `energy`. "
            f"Received: amount={amount!r}, energy={energy!r}"
        )
    if energy is not None:
        check_number("energy", energy, above=0, most=1)
    if amount is not None:
        budgets.check_amount(amount, "full ranks")
    check_integer("round_to", round_to, 1)
    check_integer("refine", refine, 0, _MOST_SWEEPS)


def _row(candidate: Candidate, choice: search.Choice, counted: Counts) -> LowRankLayer:
    layer, options = candidate.layer, candidate.options
    inside = {id(part): part for _, lineage in walk(layer) for part in lineage} | {id(layer): layer}
    macs = add_macs(counted.get(part, 0) for part in inside.values())
    count = int(layer.count_params())
    rank: tuple[int, ...] = ()
    after, macs_after, energy = count, macs, 1.0
    if options is not None and choice.row is not None:
        rank = options.rank(choice.row)
        energy = float(options.energy[choice.row])
        after += int(options.costs["parameters"][choice.row]) - options.before["parameters"]
        macs_after = int(options.costs["macs"][choice.row]) if options.known else None
    return LowRankLayer(
        path=candidate.path,
        type=type(layer).__name__,
        kernel=() if options is None else tuple(factors.variable(layer).shape),
        method=factors.method(layer) if rank else "",
        rank=rank,
        full_rank=() if options is None else options.full_rank,
        energy=energy,
        parameters=count,
        parameters_after=after,
        macs=macs,
        macs_after=macs_after,
        reason=choice.reason,
    )


def _arrow(before: int | None, after: int | None) -> str:
    if before is None or after is None:
        return "?"
    return f"{before:,} -> {after:,}"
