"""What a compression amounts to, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from .recipe import Outcome
from .target import Figures, Target
from .workbench import Workbench

__all__ = ["reason", "sentence"]


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


def reason(target: Target, outcomes: Sequence[Outcome], bench: Workbench) -> str:
    """Return which bounds were missed, by how much, and what to do.

    Args:
        target: What was wanted.
        outcomes: All that was tried.
        bench: What was measured how.

    Returns:
        A sentence or more.
    """
    known = [(o.figures, o.loss) for o in outcomes if o.figures is not None]
    known.append((bench.baseline.figures, 0.0))
    good = [figures for figures, loss in known if target.allows(loss)]
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
    fitting = [loss for figures, loss in known if target.fits(figures.bytes, figures.latency)]
    if fitting and target.accuracy_drop is not None:
        said.append(f"what fits has {bench.metric.lost(min(fitting))}")
    return f"{'; '.join(said)}. {_advice(target, bool(fitting))}"


def _advice(target: Target, fits: bool) -> str:
    bounds = ["`bytes`" if target.bytes else "", "`latency`" if target.latency else ""]
    bound = " or ".join(filter(None, bounds))
    if target.accuracy_drop is None:
        return f"Give more `minutes`, or raise {bound}."
    return f"Give more `minutes`, or raise `accuracy_drop` or {bound}."
