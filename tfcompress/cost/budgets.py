"""How large a compressed model may be: in multiply-accumulates, parameters or milliseconds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias, TypeGuard

import keras
import numpy as np

from .summary import summary

__all__ = [
    "Budget",
    "Latency",
    "Macs",
    "Parameters",
    "allowed",
    "check_amount",
    "cost",
    "limit",
    "unit",
]


@dataclass(frozen=True)
class Macs:
    """At most so many multiply-accumulates for one sample, as `tfcompress.summary` counts them.

    >>> Macs(0.5), Macs(12_000_000)
    (Macs(most=0.5), Macs(most=12000000))

    Args:
        most: A share of the model's own, above 0 and at most 1.0, as a float; or a number of them,
            as an int.

    Raises:
        TypeError: If `most` is no number.
        ValueError: If `most` is out of range.
    """

    most: float | int

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class Parameters:
    """At most so many weights, trainable or not, as `tfcompress.summary` counts them.

    >>> Parameters(0.25)
    Parameters(most=0.25)

    Args:
        most: A share of the model's own, above 0 and at most 1.0, as a float; or a number of them,
            as an int.

    Raises:
        TypeError: If `most` is no number.
        ValueError: If `most` is out of range.
    """

    most: float | int

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class Latency:
    """At most so much time for one sample, measured on this machine with `edge.benchmark`.

    Each candidate is converted to float32 with a batch of one, and run in turns with the model
    itself. The ratio of the two is compared, because noise of the machine disturbs it least.

    >>> Latency(0.5, threads=2)
    Latency(most=0.5, milliseconds=None, delegate='xnnpack', threads=2)

    Args:
        most: A share of the model's own latency, above 0 and at most 1. Give this or
            `milliseconds`. Defaults to None.
        milliseconds: The median time for one sample, above 0. Give this or `most`. Defaults to
            None.
        delegate: What runs the ops: `"xnnpack"`, `"reference"` or `"gpu"`. Defaults to `"xnnpack"`.
        threads: Number of CPU threads. Defaults to None: one.

    Raises:
        TypeError: If `most` or `milliseconds` is no number.
        ValueError: If not exactly one of `most` and `milliseconds` is given, or it is out of range.
    """

    most: float | None = None
    milliseconds: float | None = None
    delegate: str = "xnnpack"
    threads: int | None = None

    def __post_init__(self) -> None:
        if (self.most is None) == (self.milliseconds is None):
            raise ValueError(
                "A latency budget is one of `most`, a share, and `milliseconds`. Received: "
                f"most={self.most!r}, milliseconds={self.milliseconds!r}"
            )
        for name, value in (("most", self.most), ("milliseconds", self.milliseconds)):
            if value is None:
                continue
            if not _is_number(value):
                raise TypeError(f"`{name}` of Latency must be a number. Received: {value!r}")
            if not 0 < value < (math.inf if name == "milliseconds" else 1.0 + 1e-9):
                raise ValueError(
                    f"`{name}` of Latency must be above 0"
                    + (" and at most 1" if name == "most" else " and finite")
                    + f". Received: {value!r}"
                )


Budget: TypeAlias = Macs | Parameters | Latency


def _check(budget: Macs | Parameters) -> None:
    most = budget.most
    if isinstance(most, bool) or not isinstance(most, int | float):
        raise TypeError(f"`most` of {type(budget).__name__} must be a number. Received: {most!r}")
    if not (most > 0 and (isinstance(most, int) or most <= 1)):
        raise ValueError(
            f"`most` of {type(budget).__name__} must be a float above 0 and at most 1.0 (a share) "
            f"or an int above 0 (a number). Received: {most!r}"
        )


def check_amount(amount: object, share_of: str) -> None:
    """Raise if an amount is neither a share nor a budget.

    >>> check_amount(0.5, "units"), check_amount(Macs(0.5), "units")
    (None, None)

    Args:
        amount: What the user gave: a share to cut, from 0 to below 1, or a budget.
        share_of: What it is a share of, for the error: `"units"`.

    Raises:
        TypeError: If `amount` is neither a number nor a budget.
        ValueError: If `amount` is a number out of range.
    """
    if isinstance(amount, Budget):
        return
    if not _is_number(amount):
        raise TypeError(
            f"`amount` must be a share of the {share_of}, from 0 to below 1, or a budget: "
            "budgets.Macs(...), budgets.Parameters(...) or budgets.Latency(...). "
            f"Received: amount={amount!r}"
        )
    if not 0 <= amount < 1:
        raise ValueError(f"`amount` must be at least 0 and below 1. Received: {amount!r}")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def allowed(budget: Macs | Parameters, total: int) -> int:
    """Return the number that a budget allows.

    >>> allowed(Macs(0.5), 2_001), allowed(Macs(700), 2_001)
    (1000, 700)

    Args:
        budget: A share or a number.
        total: What the whole model costs, in the unit of the budget.

    Returns:
        A number of multiply-accumulates or parameters.
    """
    return budget.most if isinstance(budget.most, int) else int(budget.most * total)


def limit(budget: Macs | Parameters, model: keras.Model) -> int:
    """Return the number that a budget allows for a model.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> limit(Parameters(0.5), model)
    18

    Args:
        budget: A share or a number.
        model: A built model.

    Returns:
        A number of multiply-accumulates or parameters.

    Raises:
        ValueError: If the multiply-accumulates of the model cannot be counted.
    """
    return budget.most if isinstance(budget.most, int) else allowed(budget, cost(budget, model))


def cost(budget: Macs | Parameters, model: keras.Model) -> int:
    """Return what a model costs, in the unit of a budget.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> cost(Macs(0.5), model), cost(Parameters(0.5), model)
    (32, 36)

    Args:
        budget: Says what is counted.
        model: A built model.

    Returns:
        A number of multiply-accumulates or parameters.

    Raises:
        ValueError: If the multiply-accumulates of the model cannot be counted.
    """
    total = summary(model).total
    if isinstance(budget, Parameters):
        return total.parameters
    if total.macs is None:
        raise ValueError(
            f"The multiply-accumulates of {model.name!r} cannot be counted: `tfcompress.summary` "
            "shows where. Use `Parameters` or `Latency`."
        )
    return total.macs


def unit(budget: Macs | Parameters) -> str:
    """Return what a budget counts, in words."""
    return "multiply-accumulates" if isinstance(budget, Macs) else "parameters"
