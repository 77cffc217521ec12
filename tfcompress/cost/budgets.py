"""How large a compressed model may be: in multiply-accumulates, parameters or milliseconds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import keras

from tfcompress.edge.arguments import (
    as_number,
    check_choice,
    check_integer,
    check_number,
    check_text,
    check_threads,
    refuse,
)
from tfcompress.edge.engines.base import DELEGATES
from tfcompress.model.checks import check_built

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

_MANY = 10**18  # A thousand times the multiply-accumulates of the largest models.


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
        TypeError: If an argument has the wrong type.
        ValueError: If not exactly one of `most` and `milliseconds` is given, a number is out of
            range, or there is no such delegate.
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
            if value is not None:
                largest = math.inf if name == "milliseconds" else 1.0
                check_number(f"Latency.{name}", value, above=0, most=largest)
        check_choice("delegate", self.delegate, DELEGATES.names())
        check_threads(self.threads)


Budget: TypeAlias = Macs | Parameters | Latency


def _check(budget: Macs | Parameters) -> None:
    name = f"{type(budget).__name__}.most"
    wanted = "a float above 0 and at most 1.0 (a share) or an int above 0 (a number)"
    if isinstance(budget.most, bool) or not isinstance(budget.most, int | float):
        refuse(name, wanted, budget.most, TypeError)
    if not 0 < budget.most <= (_MANY if isinstance(budget.most, int) else 1):
        refuse(name, wanted, budget.most)


def _check_budget(budget: object) -> None:
    if not isinstance(budget, Macs | Parameters):
        refuse("budget", "budgets.Macs(...) or budgets.Parameters(...)", budget, TypeError)


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
    check_text("share_of", share_of)
    wanted = (
        f"a share of the {share_of}, from 0 to below 1, or a budget: budgets.Macs(...), "
        "budgets.Parameters(...) or budgets.Latency(...)"
    )
    if isinstance(amount, Budget):
        return
    if not 0 <= as_number("amount", wanted, amount) < 1:
        refuse("amount", wanted, amount)


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
    _check_budget(budget)
    total = check_integer("total", total, 0, _MANY)
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
    _check_budget(budget)
    check_built(model)
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
    _check_budget(budget)
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
    _check_budget(budget)
    return "multiply-accumulates" if isinstance(budget, Macs) else "parameters"
