"""`equalization_plan`: which channels can be scaled, by how much, and why others cannot."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from rich.console import Group
from rich.table import Table

from tfcompress.edge.arguments import check_bool, check_integer, check_number
from tfcompress.edge.shown import Shown
from tfcompress.model.checks import check_finite
from tfcompress.model.filters import Filters, check
from tfcompress.model.functionalize import with_graph
from tfcompress.model.quantized import is_quantized
from tfcompress.model.samples import load_samples
from tfcompress.model.signature import signature
from tfcompress.model.tables import as_text, new_table

from .factors import factors, measure, together
from .formula import unevenness
from .inserted import with_scales
from .rules import follow_scales
from .scaling import Scaling

__all__ = ["EqualizationPlan", "EqualizedChannels", "equalization_plan"]

_NOT_READ = "no layer with weights reads it"


@dataclass(frozen=True)
class EqualizedChannels:
    """Channels that are scaled together, or kept together.

    Attributes:
        producers: Paths of the layers that make them.
        readers: Paths of the layers whose weights read them.
        channels: How many there are; those that are added to each other count once.
        before: How often the median channel's largest value fits into the largest channel's: 1 if
            all channels are as large.
        after: How often the median channel's largest value fits into the largest channel's, in the
            equalized model.
        why_kept: Why the channels stay as they are, or "".
    """

    producers: tuple[str, ...]
    readers: tuple[str, ...]
    channels: int
    before: float
    after: float
    why_kept: str


@dataclass(frozen=True, eq=False)
class EqualizationPlan(Shown):
    """What `equalize` does to a model. Printing it gives a table.

    >>> model = keras.Sequential([
    ...     keras.Input((4,)), keras.layers.Dense(8, "relu", name="a"),
    ...     keras.layers.Dense(8, "relu6", name="b"), keras.layers.Dense(2, name="c")])
    >>> plan = equalization_plan(model, np.ones((8, 4)))
    >>> [channels.producers for channels in plan.equalized], plan.kept[0].why_kept
    ([('a',)], 'relu6 does not scale with what it reads (b)')

    Attributes:
        model: The model, functional.
        channels: What is scaled together, in the order of the model.
        alpha: How much of the unevenness moves into the weights.
        samples: How many samples were looked at.
    """

    model: keras.Model = field(repr=False)
    channels: tuple[EqualizedChannels, ...]
    alpha: float
    samples: int
    scaling: Scaling = field(repr=False)
    factor: npt.NDArray[np.float64] = field(repr=False)

    @property
    def equalized(self) -> tuple[EqualizedChannels, ...]:
        """Return the channels that are scaled."""
        return tuple(channels for channels in self.channels if not channels.why_kept)

    @property
    def kept(self) -> tuple[EqualizedChannels, ...]:
        """Return the channels that stay as they are; their `why_kept` says why."""
        return tuple(channels for channels in self.channels if channels.why_kept)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the factors, ready for JSON."""
        return {
            "model": self.model.name,
            "alpha": self.alpha,
            "samples": self.samples,
            "channels": [asdict(channels) for channels in self.channels],
        }

    def tables(self) -> list[Table]:
        """Return a table of the channels to scale, and one of those that are kept."""
        numbers = ("Channels", "Largest / median", "After")
        scaled = new_table(
            ("Made by", "Read by", *numbers),
            numbers=numbers,
            title=f"{self.model.name}: equalized over {self.samples} sample(s)",
        )
        for one in self.equalized:
            scaled.add_row(
                _listed(one.producers),
                _listed(one.readers),
                str(one.channels),
                f"{one.before:.1f}",
                f"{one.after:.1f}",
            )
        kept = new_table(
            ("Made by", "Read by", "Channels", "Kept, because"),
            numbers=["Channels"],
            title="Kept as they are",
        )
        for one in self.kept:
            cells = (_listed(one.producers), _listed(one.readers), str(one.channels))
            kept.add_row(*cells, one.why_kept)
        return [scaled, kept] if self.kept else [scaled]

    def __rich__(self) -> Group:
        return Group(*self.tables())

    def __str__(self) -> str:
        return as_text(*self.tables(), width=100)


def equalization_plan(
    model: keras.Model,
    samples: Any,
    *,
    filters: Filters = None,
    alpha: float = 0.5,
    rounds: int = 1,
    max_samples: int = 64,
    insert_scales: bool = False,
) -> EqualizationPlan:
    """Find the channels that `equalize` would scale, and say why it keeps the others.

    >>> hidden = keras.layers.Dense(2, kernel_initializer=keras.initializers.Constant([[1, 100]]))
    >>> model = keras.Sequential([keras.Input((1,)), hidden, keras.layers.Dense(1)])
    >>> [channels] = equalization_plan(model, np.ones((4, 1)), alpha=1.0).equalized
    >>> round(channels.before, 2), round(channels.after, 2)  # 100 over the median of 1 and 100
    (1.98, 1.0)

    Args:
        model: A built model; subclassed, if its `call` can be traced. It is only read.
        samples: Inputs like those that the model will see: an array (for one input), a dict of
            arrays by input name, a generator or `tf.data.Dataset` of either, or the path of an .npz
            file.
        filters: Layers whose outputs may be scaled: a regular expression searched in the layer's
            path, a list of layers or names, or a function of the layer. Defaults to all.
        alpha: How much of the unevenness moves into the weights that read the channels, from 0 to
            1. At 1 all channels of a tensor are as large. Weights of depthwise convolutions have a
            scale for each channel, so that channels that only they read take 1. Defaults to 0.5.
        rounds: How often the formula is applied, from 1 to 20. Defaults to 1.
        max_samples: Number of samples to use at most: evenly spaced ones of an array, the first
            ones of a generator or dataset. Defaults to 64.
        insert_scales: Whether a layer that scales channels is put between a normalization and the
            projections that read it, where a sum reads it as well. Defaults to False.

    Returns:
        A plan, which prints as a table.

    Raises:
        TypeError: `model` is no Keras model, or an argument has the wrong type.
        ValueError: The model is not built, cannot be traced, is quantization-aware, or holds NaN;
            the samples do not fit it, hold NaN, or are none; an argument is out of range; or
            `filters` or one of its entries selects no layer that makes channels.

    Reference:
        Xiao et al., "SmoothQuant", https://arxiv.org/abs/2211.10438.
    """
    check(filters)
    alpha = float(check_number("alpha", alpha, 0, 1))
    check_integer("rounds", rounds, 1, 20)
    check_integer("max_samples", max_samples, 1)
    check_bool("insert_scales", insert_scales)
    model = with_graph(model)
    if is_quantized(model):
        raise ValueError(
            f"The model {model.name!r} is quantization-aware: its ranges would no longer fit. "
            "Equalize it before `quantize_aware`, or what `strip` gives back."
        )
    check_finite(model)
    if insert_scales:
        model = with_scales(model)
    call = signature(model)
    arrays = load_samples(samples, call.inputs, max_samples=max_samples)
    scaling = follow_scales(model, filters)
    largest = measure(model, scaling, call, arrays)
    factor = factors(scaling, largest, alpha, rounds)
    count = len(next(iter(arrays.values())))
    rows = tuple(_rows(scaling, largest, factor))
    return EqualizationPlan(model, rows, alpha, count, scaling, factor)


def _rows(
    scaling: Scaling, largest: npt.NDArray[np.float64], factor: npt.NDArray[np.float64]
) -> list[EqualizedChannels]:
    roots, reasons = scaling.roots(), scaling.reasons()
    family = together(scaling, roots)
    folded = {int(unit) for ids in scaling.folded for unit in roots[ids]}
    read = {int(unit) for one in scaling.reads for unit in roots[one.ids]}
    members: dict[int, list[int]] = {}
    for source in scaling.sources:
        units = roots[source.ids].tolist()
        if not folded.issuperset(units):
            members.setdefault(int(family[units[0]]), []).extend(units)
    rows = []
    for number, units in members.items():
        here = np.unique(units)
        free = [unit for unit in here.tolist() if unit not in reasons and unit in read]
        why = next((reasons[unit] for unit in here.tolist() if unit in reasons), _NOT_READ)
        rows.append(
            EqualizedChannels(
                tuple(dict.fromkeys(s.path for s in scaling.sources if family[s.ids[0]] == number)),
                tuple(
                    dict.fromkeys(
                        r.path for r in scaling.reads if (family[r.ids[r.ids > 0]] == number).any()
                    )
                ),
                len(here),
                unevenness(largest[here]),
                unevenness(largest[here] * factor[here]),
                "" if free else why,
            )
        )
    return rows


def _listed(paths: tuple[str, ...], limit: int = 3) -> str:
    more = len(paths) - limit
    return ", ".join(paths[:limit]) + (f" and {more} more" if more > 0 else "")
