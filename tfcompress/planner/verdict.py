"""What a compression amounts to, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from .recipe import Outcome
from .search import NO_TRAINING
from .target import Figures, Target, allows, fits
from .workbench import Workbench

__all__ = ["CANNOT", "NO_TRAINING", "TIME_UP", "reason", "sentence"]

TIME_UP = "the time was up"
CANNOT = "early,"


def sentence(original: Figures, best: Figures, loss: float, bench: Workbench) -> str:
    """Return how much smaller and faster a file is, and what it lost, in one sentence.

    Args:
        original: The figures of the original.
        best: The figures of the file.
        loss: How much worse its metric is.
        bench: What was measured how.

    Returns:
        The sentence.
    """
    device = bench.device
    speed = 1 / best.latency
    pace = f"{speed:.1f}x faster" if speed >= 1 else f"{1 / speed:.1f}x slower"
    where = f"{device.delegate} on {device.target.name}"
    if device.target.emulated:
        pace, where = "of unknown speed", f"{where}, which is emulated"
    return (
        f"{original.bytes / best.bytes:.1f}x smaller ({best.bytes:,} of {original.bytes:,} bytes), "
        f"{pace}, {bench.metric.lost(loss)} ({bench.metric.name} {bench.metric.text(best.metric)} "
        f"of {bench.metric.text(original.metric)}); ran on {where}."
    )


def reason(target: Target, outcomes: Sequence[Outcome], bench: Workbench, ended: str) -> str:
    """Return which bounds were missed, by how much, and what to do.

    Args:
        target: What was wanted.
        outcomes: All that was tried.
        bench: What was measured how.
        ended: Why nothing more was tried.

    Returns:
        A sentence or more.
    """
    sure = [o for o in outcomes if not o.samples]  # what is not, was no better
    known = [(o.figures, o.loss) for o in sure if o.figures is not None]
    known.append((bench.baseline.figures, 0.0))
    good = [figures for figures, loss in known if allows(target, loss)]
    said = []
    if target.bytes is not None:
        least = min(figures.bytes for figures in good)
        if least > target.bytes:
            said.append(
                f"{target.bytes:,} bytes wanted; the smallest at this accuracy is {least:,}"
            )
    if target.latency is not None:
        least_time = min(figures.latency for figures in good)
        if least_time > target.latency:
            said.append(
                f"{target.latency:.2f} of the latency wanted; the fastest at this accuracy takes "
                f"{least_time:.2f}"
            )
    if not said:
        said.append("No file is within all bounds at once")
    fitting = [loss for figures, loss in known if fits(target, figures.bytes, figures.latency)]
    if fitting and target.accuracy_drop is not None:
        said.append(f"what fits has {bench.metric.lost(min(fitting))}")
    return f"{'; '.join(said)}. {_advice(target, ended)}"


def _advice(target: Target, ended: str) -> str:
    bounds = [f"`{name}`" for name in ("bytes", "latency") if getattr(target, name) is not None]
    if target.accuracy_drop is not None:
        bounds.insert(0, "`accuracy_drop`")
    less = f"raise {' or '.join(bounds)}"
    if ended == TIME_UP:
        return f"The time was up: give more `minutes`, or {less}."
    if ended.startswith(CANNOT):
        return f"It ended {ended}; then `resume()`, or a call with the same `storage`, goes on."
    if ended == NO_TRAINING:
        return (
            "Nothing was trained, as the model is not compiled: compile it, or give `fine_tune`; "
            f"or {less}."
        )
    return f"It ended because {ended}: {less}."
