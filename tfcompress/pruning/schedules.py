"""Sparsity schedules: functions from the optimizer step to the share of zeros."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import keras

from tfcompress.edge.arguments import check_integer, check_number, refuse

__all__ = ["Constant", "Exponential", "OneShot", "Polynomial", "Schedule"]

_UPDATES = 20
"""Updates of the masks that a schedule in shares of a fit makes at least."""


class Schedule:
    """Sparsity over optimizer steps, and the steps at which masks are updated.

    Masks are updated at `begin`, then every `frequency` steps, and a last time at exactly `end`,
    also if `frequency` does not divide the distance. With `end=None` there is no last time. Step
    `t` is the moment when `optimizer.iterations == t`, after `t` weight updates.

    `begin` and `end` are steps if they are integers. Floats are shares of the `fit` that the
    schedule is used in: 0.75 is after three quarters of it, 2 / 20 after two of 20 epochs.

    To write another schedule, derive a frozen dataclass with the fields `begin`, `end` and
    `frequency` and with `final`, and define `_sparsity`. To save it, register the class with
    `keras.saving.register_keras_serializable`.

    >>> schedule = Polynomial(0.0, 0.5, begin=10, end=35, frequency=10)
    >>> [step for step in range(50) if schedule.last_update(step) == step]
    [10, 20, 30, 35]
    >>> Polynomial(0.0, 0.5, begin=0.1, end=0.75).in_steps(0, 1000)
    Polynomial(initial=0.0, final=0.5, begin=100, end=750, power=3.0, frequency=32)
    """

    begin: int | float
    end: int | float | None
    frequency: int
    final: float

    def in_steps(self, first: int, steps: int) -> Schedule:
        """Return the schedule with optimizer steps in place of shares.

        Args:
            first: The optimizer step at which the fit begins.
            steps: Number of optimizer steps of the fit, at least 1.

        Returns:
            The schedule; itself if it holds no shares. Masks are updated 20 times at least from
            `begin` to `end`, if there are so many steps.
        """
        check_integer("first", first, 0)
        check_integer("steps", steps, 1)
        if not self._in_shares():
            return self
        found = {
            name: first + round(share * steps)
            for name, share in self.get_config().items()
            if name in ("begin", "end", "step") and share is not None
        }
        if "end" in found and "begin" in found:
            often = max(1, (found["end"] - found["begin"]) // _UPDATES)
            found["frequency"] = min(self.frequency, often)
        return dataclasses.replace(self, **found)  # type: ignore[type-var]

    def _in_shares(self) -> bool:
        return isinstance(self.begin, float) or isinstance(self.end, float)

    def _steps(self) -> tuple[int, int | None]:
        """Return `begin` and `end`."""
        if self._in_shares():
            raise ValueError(
                f"{self!r} counts in shares of a fit, which has no steps yet. `in_steps` gives it "
                "the steps of one."
            )
        return int(self.begin), None if self.end is None else int(self.end)

    @property
    def target_step(self) -> int:
        """Return the first step at which the sparsity is `final`."""
        begin, end = self._steps()
        return begin if end is None else end

    def _sparsity(self, progress: float) -> float:
        """Return the sparsity at a progress from 0 (`begin`) to 1 (`end`)."""
        raise NotImplementedError

    def __call__(self, step: int) -> float:
        """Return the sparsity at a step, in [0, 1); 0 before `begin`."""
        check_integer("step", step, 0)
        (begin, _), end = self._steps(), self.target_step
        if step < begin:
            return 0.0
        if step >= end:
            return self.final
        return self._sparsity((step - begin) / (end - begin))

    def last_update(self, step: int) -> int | None:
        """Return the latest step up to and including `step` at which masks are updated, or None."""
        check_integer("step", step, 0)
        begin, end = self._steps()
        if step < begin:
            return None
        if end is not None and step >= end:
            return end
        return step - (step - begin) % self.frequency

    def next_update(self, step: int) -> int | None:
        """Return the first step after `step` at which masks are updated, or None."""
        begin, end = self._steps()
        last = self.last_update(step)
        if last is None:
            return begin
        if last == end:
            return None
        following = last + self.frequency
        return following if end is None else min(following, end)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, for `from_config`."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the schedule of a config from `get_config`."""
        return cls(**config)


def _check_steps(begin: int | float, end: int | float, frequency: int) -> None:
    _check_step("begin", begin)
    _check_step("end", end)
    check_integer("frequency", frequency, 1)
    if isinstance(begin, float) != isinstance(end, float):
        raise ValueError(
            "`begin` and `end` must both be steps, which are integers, or both shares of the fit, "
            f"which are floats. Received: begin={begin!r}, end={end!r}"
        )
    if end < begin:
        raise ValueError(f"`end` must not be before `begin`. Received: begin={begin}, end={end}")


def _check_step(name: str, value: int | float) -> None:
    """Check an optimizer step, or a share of the fit."""
    if not isinstance(value, float):
        check_integer(name, value, 0)
    elif not 0.0 <= value <= 1.0:
        wanted = (
            "an optimizer step, which is an integer, or a share of the fit, a float from 0 to 1"
        )
        refuse(name, wanted, value)


@keras.saving.register_keras_serializable(package="tfcompress")
@dataclasses.dataclass(frozen=True)
class Constant(Schedule):
    """Keep one sparsity from `begin` on: `s(t) = sparsity` for `t >= begin`, else 0.

    The masks are updated every `frequency` steps. By magnitude, weights that are zero stay the
    lowest, so with that importance the masks hardly change after the first update.

    >>> schedule = Constant(0.5, begin=100)
    >>> schedule(99), schedule(100), schedule(10_000)
    (0.0, 0.5, 0.5)

    Args:
        sparsity: Share of the weights that are zero, in [0, 1).
        begin: Optimizer step of the first update of the masks, or, as a float, share of the fit.
            Defaults to 0.
        end: Optimizer step or share of the last update, or `None` (the default) for no last one.
        frequency: Optimizer steps between two updates of the masks. Defaults to 100.

    Raises:
        TypeError: An argument is no number.
        ValueError: An argument is out of its range.
    """

    sparsity: float
    begin: int | float = 0
    end: int | float | None = None
    frequency: int = 100

    def __post_init__(self) -> None:
        check_number("sparsity", self.sparsity, 0, below=1)
        _check_steps(self.begin, self.begin if self.end is None else self.end, self.frequency)

    @property
    def final(self) -> float:  # type: ignore[override]
        """Return the sparsity at the end of the schedule."""
        return self.sparsity

    @property
    def target_step(self) -> int:
        """Return the first step at which the sparsity is `final`."""
        return self._steps()[0]

    def _sparsity(self, progress: float) -> float:
        return self.sparsity


@keras.saving.register_keras_serializable(package="tfcompress")
@dataclasses.dataclass(frozen=True)
class OneShot(Schedule):
    """Prune to the full sparsity at one step: `s(t) = sparsity` for `t >= step`, else 0.

    >>> schedule = OneShot(0.5, step=100)
    >>> schedule(99), schedule(100), schedule.last_update(10_000)
    (0.0, 0.5, 100)

    Args:
        sparsity: Share of the weights that are zero, in [0, 1).
        step: Optimizer step at which the masks are computed, or, as a float, share of the fit.
            Defaults to 0.

    Raises:
        TypeError: An argument is no number.
        ValueError: An argument is out of its range.
    """

    sparsity: float
    step: int | float = 0

    def __post_init__(self) -> None:
        check_number("sparsity", self.sparsity, 0, below=1)
        _check_step("step", self.step)

    @property
    def begin(self) -> int | float:  # type: ignore[override]
        """Return the step at which the masks are computed."""
        return self.step

    @property
    def end(self) -> int | float:  # type: ignore[override]
        """Return the step at which the masks are computed."""
        return self.step

    @property
    def frequency(self) -> int:  # type: ignore[override]
        """Return 1; there is a single update."""
        return 1

    @property
    def final(self) -> float:  # type: ignore[override]
        """Return the sparsity at the end of the schedule."""
        return self.sparsity

    def _sparsity(self, progress: float) -> float:
        return self.sparsity


@keras.saving.register_keras_serializable(package="tfcompress")
@dataclasses.dataclass(frozen=True)
class Polynomial(Schedule):
    """Prune fast at first, then more and more slowly (Zhu & Gupta, 2017).

    `s(t) = final + (initial - final) * (1 - (t - begin) / (end - begin)) ** power` from `begin` to
    `end`; 0 before, `final` after. With `power=1` it is a straight line.

    >>> schedule = Polynomial(0.0, 0.8, begin=0, end=1000)
    >>> [round(schedule(step), 4) for step in (0, 250, 500, 750, 1000, 2000)]
    [0.0, 0.4625, 0.7, 0.7875, 0.8, 0.8]

    Args:
        initial: Sparsity at `begin`, in [0, 1).
        final: Sparsity at `end` and after, in [0, 1).
        begin: Optimizer step of the first update of the masks, or, as a float, share of the fit.
        end: Optimizer step or share of the last update, at which `final` is reached. Leave some
            epochs after it, in which the remaining weights make up for the pruned ones.
        power: Exponent, positive. Defaults to 3, as in the paper.
        frequency: Optimizer steps between two updates of the masks. Defaults to 100.

    Raises:
        TypeError: An argument is no number.
        ValueError: An argument is out of its range.

    Reference:
        Zhu & Gupta, "To prune, or not to prune", https://arxiv.org/abs/1710.01878, equation 1.
    """

    initial: float
    final: float
    begin: int | float
    end: int | float
    power: float = 3.0
    frequency: int = 100

    def __post_init__(self) -> None:
        check_number("initial", self.initial, 0, below=1)
        check_number("final", self.final, 0, below=1)
        _check_steps(self.begin, self.end, self.frequency)
        check_number("power", self.power, above=0)

    def _sparsity(self, progress: float) -> float:
        return float(self.final + (self.initial - self.final) * (1.0 - progress) ** self.power)


@keras.saving.register_keras_serializable(package="tfcompress")
@dataclasses.dataclass(frozen=True)
class Exponential(Schedule):
    """Prune the same share of the remaining weights each time, as in iterative pruning.

    The density `1 - s` decays exponentially:
    `s(t) = 1 - (1 - initial) * ((1 - final) / (1 - initial)) ** ((t - begin) / (end - begin))` from
    `begin` to `end`; 0 before, `final` after.

    >>> schedule = Exponential(0.0, 0.75, begin=0, end=1000)
    >>> [round(schedule(step), 4) for step in (0, 500, 1000)]
    [0.0, 0.5, 0.75]

    Args:
        initial: Sparsity at `begin`, in [0, 1).
        final: Sparsity at `end` and after, in [0, 1).
        begin: Optimizer step of the first update of the masks, or, as a float, share of the fit.
        end: Optimizer step or share of the last update, at which `final` is reached.
        frequency: Optimizer steps between two updates of the masks. Defaults to 100.

    Raises:
        TypeError: An argument is no number.
        ValueError: An argument is out of its range.

    Reference:
        Frankle & Carbin, "The Lottery Ticket Hypothesis", https://arxiv.org/abs/1803.03635,
        section 1: each of n rounds prunes `p ** (1 / n)` of the weights that survive.
    """

    initial: float
    final: float
    begin: int | float
    end: int | float
    frequency: int = 100

    def __post_init__(self) -> None:
        check_number("initial", self.initial, 0, below=1)
        check_number("final", self.final, 0, below=1)
        _check_steps(self.begin, self.end, self.frequency)

    def _sparsity(self, progress: float) -> float:
        ratio = (1.0 - self.final) / (1.0 - self.initial)
        return float(1.0 - (1.0 - self.initial) * ratio**progress)
