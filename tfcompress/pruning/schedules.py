"""Sparsity schedules: functions from the optimizer step to the share of zeros."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import keras

from tfcompress.edge.arguments import check_integer, check_number

__all__ = ["Constant", "Exponential", "OneShot", "Polynomial", "Schedule"]


class Schedule:
    """Sparsity over optimizer steps, and the steps at which masks are updated.

    Masks are updated at `begin`, then every `frequency` steps, and a last time at exactly `end`,
    also if `frequency` does not divide the distance. With `end=None` there is no last time. Step
    `t` is the moment when `optimizer.iterations == t`, after `t` weight updates.

    To write another schedule, derive a frozen dataclass with the fields `begin`, `end` and
    `frequency` and with `final`, and define `_sparsity`. To save it, register the class with
    `keras.saving.register_keras_serializable`.

    >>> schedule = Polynomial(0.0, 0.5, begin=10, end=35, frequency=10)
    >>> [step for step in range(50) if schedule.last_update(step) == step]
    [10, 20, 30, 35]
    """

    begin: int
    end: int | None
    frequency: int
    final: float

    @property
    def target_step(self) -> int:
        """Return the first step at which the sparsity is `final`."""
        return self.begin if self.end is None else self.end

    def _sparsity(self, progress: float) -> float:
        """Return the sparsity at a progress from 0 (`begin`) to 1 (`end`)."""
        raise NotImplementedError

    def __call__(self, step: int) -> float:
        """Return the sparsity at a step, in [0, 1); 0 before `begin`."""
        check_integer("step", step, 0)
        if step < self.begin:
            return 0.0
        if step >= self.target_step:
            return self.final
        return self._sparsity((step - self.begin) / (self.target_step - self.begin))

    def last_update(self, step: int) -> int | None:
        """Return the latest step up to and including `step` at which masks are updated, or None."""
        check_integer("step", step, 0)
        if step < self.begin:
            return None
        if self.end is not None and step >= self.end:
            return self.end
        return step - (step - self.begin) % self.frequency

    def next_update(self, step: int) -> int | None:
        """Return the first step after `step` at which masks are updated, or None."""
        last = self.last_update(step)
        if last is None:
            return self.begin
        if last == self.end:
            return None
        following = last + self.frequency
        return following if self.end is None else min(following, self.end)

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


def _check_steps(begin: int, end: int, frequency: int) -> None:
    check_integer("begin", begin, 0)
    check_integer("end", end, 0)
    check_integer("frequency", frequency, 1)
    if end < begin:
        raise ValueError(f"`end` must not be before `begin`. Received: begin={begin}, end={end}")


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
        begin: Optimizer step of the first update of the masks. Defaults to 0.
        end: Optimizer step of the last update, or `None` (the default) for no last one.
        frequency: Optimizer steps between two updates of the masks. Defaults to 100.

    Raises:
        TypeError: An argument is no number.
        ValueError: An argument is out of its range.
    """

    sparsity: float
    begin: int = 0
    end: int | None = None
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
        return self.begin

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
        step: Optimizer step at which the masks are computed. Defaults to 0.

    Raises:
        TypeError: An argument is no number.
        ValueError: An argument is out of its range.
    """

    sparsity: float
    step: int = 0

    def __post_init__(self) -> None:
        check_number("sparsity", self.sparsity, 0, below=1)
        check_integer("step", self.step, 0)

    @property
    def begin(self) -> int:  # type: ignore[override]
        """Return the step at which the masks are computed."""
        return self.step

    @property
    def end(self) -> int:  # type: ignore[override]
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
        begin: Optimizer step of the first update of the masks.
        end: Optimizer step of the last update, at which `final` is reached. Leave some epochs after
            it, in which the remaining weights make up for the pruned ones.
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
    begin: int
    end: int
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
        begin: Optimizer step of the first update of the masks.
        end: Optimizer step of the last update, at which `final` is reached.
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
    begin: int
    end: int
    frequency: int = 100

    def __post_init__(self) -> None:
        check_number("initial", self.initial, 0, below=1)
        check_number("final", self.final, 0, below=1)
        _check_steps(self.begin, self.end, self.frequency)

    def _sparsity(self, progress: float) -> float:
        ratio = (1.0 - self.final) / (1.0 - self.initial)
        return float(1.0 - (1.0 - self.initial) * ratio**progress)
