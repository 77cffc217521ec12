"""`low_rank_plan`: which rank each layer of a model is to get, and why some get none."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tfcompress.cost.macs import count_macs
from tfcompress.model.checks import check_finite
from tfcompress.model.filters import Filters, select_layers
from tfcompress.model.functionalize import with_graph
from tfcompress.model.graph import calls
from tfcompress.model.kernels import kernels_of
from tfcompress.model.layers import Lineage, own_weights, walk
from tfcompress.model.quantized import is_quantized

from . import factors, ranks
from .plan import LowRankLayer, LowRankPlan
from .ranks import Options, Shape

__all__ = ["factorable", "low_rank_plan"]


@dataclass(eq=False)
class _Found:
    """A layer with kernels, and where and how it is called."""

    path: str
    lineage: Lineage
    shapes: list[Shape] = field(default_factory=list)
    reason: str = ""
    options: Options | None = None
    row: int | None = None

    @property
    def layer(self) -> Any:
        return self.lineage[-1]


def low_rank_plan(
    model: keras.Model,
    *,
    energy: float | None = None,
    ratio: float | None = None,
    parameters: float | None = None,
    macs: float | None = None,
    filters: Filters = None,
    round_to: int = 1,
    refine: int = 0,
) -> LowRankPlan:
    """Plan what `factorize` does to a model, and why it leaves the other layers alone.

    Exactly one of the first four arguments says how ranks are chosen. A layer is left alone where
    it would not get cheaper, in parameters and in multiply-accumulates. (An `Embedding` has none
    of these, so that it is parameters alone there; under `macs` it is left alone.)

    >>> x = keras.Input((64,))
    >>> head = keras.layers.Dense(32, name="head")
    >>> plan = low_rank_plan(keras.Model(x, head(x), name="net"), ratio=0.25)
    >>> plan.layers[0].rank, plan.parameters, plan.parameters_after, plan.macs_after
    ((8,), 2080, 800, 768)

    Args:
        model: A built model; it is only read.
        energy: Share of the squared singular values that each kernel keeps at least, above 0 to 1.
            The ranks are the cheapest that do. 1 drops no more than float32's rounding hides.
        ratio: Rank as a share of the full rank, above 0 to 1.
        parameters: Share of the model's parameters that is left at most, above 0 to 1. All layers
            keep the same energy, the highest that is within this budget.
        macs: The same for multiply-accumulates per sample.
        filters: Which layers, as everywhere. Defaults to all.
        round_to: Ranks are multiples of this, rounded up. Defaults to 1.
        refine: Sweeps of HOOI over what Tucker-2 begins with. Defaults to 0.

    Returns:
        A plan for `factorize`, which prints as a table.

    Raises:
        TypeError: It is no Keras model, or an argument has a wrong type.
        ValueError: An argument has a wrong value; nothing is meant by `filters`; the model is not
            built, quantization-aware, or subclassed and cannot be read off its `call`; a weight is
            NaN; or a budget is impossible.

    Reference:
        Eckart & Young 1936; Tucker-2: Kim et al. 2016, https://arxiv.org/abs/1511.06530
    """
    rules = {"energy": energy, "ratio": ratio, "parameters": parameters, "macs": macs}
    rule, share = _check_arguments(rules, round_to, refine)
    model = factorable(model)
    found = _find(model)
    _select(model, found, filters)
    cost = "macs" if rule == "macs" else "parameters"
    measured = count_macs(model)
    totals = {"parameters": int(model.count_params()), "macs": _sum(measured.values())}
    for entry in found:
        if rule == "macs" and isinstance(entry.layer, keras.layers.Embedding):
            entry.reason = entry.reason or "its lookups cost no MACs"
        if not entry.reason:
            kernel = factors.kernel_of(entry.layer)
            spent = measured.get(entry.layer, 0)
            entry.options = ranks.options(entry.layer, kernel, entry.shapes, spent, round_to)
    said = f"{rule}={share:g}"
    if rule in ("parameters", "macs"):
        before = totals[cost]
        if before is None:
            raise ValueError(_unknown_macs(model, measured))
        share = _within_budget(model, found, rule, share, before)
        said += f": {share:.2%} of the energy kept"
    for entry in found:
        if entry.options is not None:
            _choose(entry, entry.options, rule, share, cost)
    rows = tuple(_row(entry, measured) for entry in found)
    parameters_now, macs_now = totals["parameters"], totals["macs"]
    assert parameters_now is not None
    return LowRankPlan(model.name, said, rows, parameters_now, macs_now, refine)


def factorable(model: keras.Model) -> keras.Model:
    """The model as one whose graph can be read and whose weights are fit to be factorized.

    Raises:
        TypeError: It is no Keras model.
        ValueError: It is not fit; says what to do.
    """
    model = with_graph(model)
    if is_quantized(model):
        raise ValueError(
            f"The model {model.name!r} is quantization-aware. Factorize first: "
            "quantize_aware(factorize(model, ...)). `strip` makes it a float model again."
        )
    check_finite(model)
    return model


def _check_arguments(
    rules: dict[str, float | None], round_to: int, refine: int
) -> tuple[str, float]:
    given = {name: value for name, value in rules.items() if value is not None}
    if len(given) != 1:
        received = ", ".join(f"{name}={value!r}" for name, value in given.items()) or "none of them"
        raise ValueError(
            "Exactly one of energy, ratio, parameters and macs says how ranks are chosen. "
            f"Received: {received}"
        )
    [(name, value)] = given.items()
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name} must be a number. Received: {name}={value!r}")
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1. Received: {name}={value!r}")
    for option, number, least in (("round_to", round_to, 1), ("refine", refine, 0)):
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"{option} must be a whole number. Received: {option}={number!r}")
        if number < least:
            raise ValueError(f"{option} must be at least {least}. Received: {option}={number!r}")
    return name, float(value)


def _find(model: keras.Model) -> list[_Found]:
    """The layers with kernels; those that no factors can stand for have a reason."""
    found: dict[int, _Found] = {}
    holders: dict[int, str] = {}
    for lineage, shape in calls(model):
        layer = lineage[-1]
        for _, inside in walk(layer):
            if inside:
                holders[id(inside[-1])] = layer.name
        if isinstance(layer, factors.TYPES) or kernels_of(layer):
            path = "/".join(part.name for part in lineage)
            found.setdefault(id(layer), _Found(path, lineage)).shapes.append(shape)
    owners: dict[int, set[str]] = {}
    for path, lineage in walk(model):
        for weight in own_weights(lineage[-1] if lineage else model):
            owners.setdefault(id(weight), set()).add(path)
    for entry in found.values():
        entry.reason = factors.why_not(entry.layer)
        if id(entry.layer) in holders:
            entry.reason = f"also used inside {holders[id(entry.layer)]!r}"
        elif not entry.reason:
            others = owners[id(factors.variable(entry.layer))] - {entry.path}
            if others:
                entry.reason = f"its kernel is shared with {', '.join(map(repr, sorted(others)))}"
    return list(found.values())


def _select(model: keras.Model, found: list[_Found], filters: Filters) -> None:
    """Give the layers that `filters` does not select a reason to stay as they are."""
    places = [(entry.path, entry.lineage) for entry in found]
    selected = select_layers(model, filters, places, kind="layer with a kernel")
    for entry in found:
        if id(entry.layer) not in selected:
            entry.reason = "not selected by filters"


def _within_budget(
    model: keras.Model, found: list[_Found], rule: str, share: float, before: int
) -> float:
    """The energy that all layers keep so that the model is within the budget."""
    candidates = [entry.options for entry in found if entry.options is not None]
    fixed = before - sum(option.before[rule] for option in candidates)
    energy, least = ranks.common_energy(candidates, rule, share * before - fixed)
    least += fixed
    if least > share * before:
        smallest = math.ceil(least / before * 1e4) / 1e4
        raise ValueError(
            f"{rule}={share:g} leaves {int(share * before):,} of the {before:,} {rule} of "
            f"{model.name!r}, but even at the lowest ranks there are {least:,}. The smallest "
            f"possible is {rule}={smallest:g}. low_rank_plan(model, {rule}={smallest:g}) says "
            "which layers are left alone, and why."
        )
    return energy


def _choose(entry: _Found, options: Options, rule: str, share: float, cost: str) -> None:
    cheaper = options.cheaper
    if not cheaper.any():
        # Of a k x k convolution narrower than `round_to` there is the full rank alone.
        lowest = options.ranks[0] if len(options.ranks) else options.full_rank
        entry.reason = f"too small: not cheaper even at rank {_join(lowest)}"
        return
    if rule == "ratio":
        row = options.at(share)
    else:
        row = options.cheapest(share, cost)
        row = options.needed(share, cost) if row is None else row
    if row is None:
        entry.reason = "needs its full rank"
    elif not cheaper[row]:
        entry.reason = f"not cheaper at rank {_join(options.ranks[row])}"
    else:
        entry.row = row


def _row(entry: _Found, measured: dict[keras.layers.Layer, int | None]) -> LowRankLayer:
    layer, options, row = entry.layer, entry.options, entry.row
    inside = {id(part): part for _, lineage in walk(layer) for part in lineage} | {id(layer): layer}
    macs = _sum(measured.get(part, 0) for part in inside.values())
    count = int(layer.count_params())
    rank: tuple[int, ...] = ()
    after, macs_after, energy = count, macs, 1.0
    if options is not None and row is not None:
        rank = tuple(int(r) for r in options.ranks[row])
        energy = float(options.energy[row])
        after += int(options.costs["parameters"][row]) - options.before["parameters"]
        macs_after = int(options.costs["macs"][row]) if options.known else None
    return LowRankLayer(
        path=entry.path,
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
        reason=entry.reason,
    )


def _unknown_macs(model: keras.Model, measured: dict[keras.layers.Layer, int | None]) -> str:
    names = ", ".join(repr(layer.name) for layer, macs in measured.items() if macs is None)
    return (
        f"The multiply-accumulates of {model.name!r} are not known, because sizes of what goes "
        f"into {names} are not. Give the model inputs of fixed sizes, or a budget of parameters."
    )


def _sum(counts: Any) -> int | None:
    counts = list(counts)
    return None if None in counts else sum(counts)


def _join(rank: Any) -> str:
    return ", ".join(str(int(r)) for r in rank)
