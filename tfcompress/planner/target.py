"""`Target`: how small, how fast and how good the compressed model must be."""

from __future__ import annotations

from dataclasses import dataclass

from tfcompress.edge.arguments import check_choice, check_integer, check_number

__all__ = ["Figures", "Target", "allows", "fits", "loss_of", "met_by", "rank"]

_AIMS = ("bytes", "latency")


@dataclass(frozen=True)
class Figures:
    """What was measured of a file.

    Attributes:
        bytes: Size of the file, as it ships.
        metric: Value of the metric on the outputs of the file over the validation data.
        milliseconds: Median time of one run on the device.
        latency: Time of one run as a share of the original's, from interleaved rounds.
    """

    bytes: int
    metric: float
    milliseconds: float
    latency: float


@dataclass(frozen=True)
class Target:
    """What is wanted of a compressed model, all of it measured on its .tflite file.

    Without `minimize`, the work ends as soon as all bounds are met. With it, the work goes on for
    as long as it may, and the best is the smallest or the fastest file within the bounds.

    >>> Target(bytes=100_000, accuracy_drop=0.01)
    Target(bytes=100000, latency=None, accuracy_drop=0.01, minimize=None)

    Args:
        bytes: Largest size of the file. Defaults to None, any.
        latency: Longest time of one run, as a share of the time that the original takes as a
            float32 file, above 0 and at most 1. Defaults to None, any.
        accuracy_drop: How much worse than the original's the metric may be, at least 0, in units of
            the metric: 0.01 is one point of accuracy. Defaults to None: the best metric that the
            other bounds allow.
        minimize: "bytes" or "latency", what to make as small as the bounds allow. Defaults to None.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A number is out of range, nothing is asked for, or `minimize` is given without
            an `accuracy_drop`.
    """

    bytes: int | None = None
    latency: float | None = None
    accuracy_drop: float | None = None
    minimize: str | None = None

    def __post_init__(self) -> None:
        if self.bytes is not None:
            check_integer("bytes", self.bytes, 1, 2**62)
        if self.latency is not None:
            check_number("latency", self.latency, above=0, most=1)
        if self.accuracy_drop is not None:
            check_number("accuracy_drop", self.accuracy_drop, 0)
        if self.minimize is not None:
            check_choice("minimize", self.minimize, _AIMS)
        if self.accuracy_drop is None and self.minimize is not None:
            raise ValueError(
                f"`minimize={self.minimize!r}` needs `accuracy_drop`: a model that is as small as "
                "possible at any accuracy is of no use."
            )
        if (self.bytes, self.latency, self.accuracy_drop) == (None, None, None):
            raise ValueError(
                "A target says at least one of `bytes`, `latency` and `accuracy_drop`, such as "
                "Target(bytes=100_000, accuracy_drop=0.01)."
            )


def fits(target: Target, bytes: int, latency: float) -> bool:
    """Return whether a file is small and fast enough."""
    return (target.bytes is None or bytes <= target.bytes) and (
        target.latency is None or latency <= target.latency
    )


def allows(target: Target, loss: float) -> bool:
    """Return whether the metric may be so much worse than the original's."""
    # As metrics are means of float32, 0.01 points must not fail by the last bit.
    return target.accuracy_drop is None or loss <= target.accuracy_drop + 1e-9


def met_by(target: Target, figures: Figures, loss: float) -> bool:
    """Return whether a file meets all bounds."""
    return fits(target, figures.bytes, figures.latency) and allows(target, loss)


def rank(target: Target, figures: Figures, loss: float) -> tuple[float, ...]:
    """Return what the better of two files has the smaller one of.

    A file that meets the target is better than any that does not. Of those that meet it, the
    better one has less of what is minimized: bytes, where only the accuracy is bounded; the
    loss, where size or time is. Of those that do not, the better one loses less than is allowed
    or exceeds that by less, and then exceeds the bounds of bytes and latency by less, each as a
    share of its bound.
    """
    if met_by(target, figures, loss):
        size, time = float(figures.bytes), figures.latency
        if target.minimize == "latency":
            return (0.0, 0.0, time, size, loss)
        if target.minimize == "bytes" or (target.bytes is None and target.latency is None):
            return (0.0, 0.0, size, time, loss)
        return (0.0, 0.0, loss, size, time)
    excess = 0.0
    if target.bytes is not None:
        excess += max(0.0, figures.bytes / target.bytes - 1)
    if target.latency is not None:
        excess += max(0.0, figures.latency / target.latency - 1)
    if target.accuracy_drop is not None:
        # At this accuracy first: a file that is small and knows nothing is no second best.
        allowed = 0.0 if allows(target, loss) else loss - target.accuracy_drop
        return (1.0, allowed, excess, figures.bytes, figures.latency)
    return (1.0, excess, loss, figures.bytes, figures.latency)


def loss_of(metric: float, original: float, higher_is_better: bool) -> float:
    """Return how much worse a metric is than the original's; negative if it is better.

    >>> round(loss_of(0.97, 0.98, higher_is_better=True), 3)
    0.01

    Args:
        metric: Value of the metric.
        original: Value of the original.
        higher_is_better: Whether a high value is good.

    Returns:
        The difference, in units of the metric.
    """
    return original - metric if higher_is_better else metric - original
