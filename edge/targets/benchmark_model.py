"""What TensorFlow Lite's `benchmark_model` prints, read.

The texts are those of tensorflow/lite/tools/benchmark/benchmark_model.cc and
benchmark_tflite_model.cc, tensorflow/core/util/stats_calculator.h ("count=") and
tensorflow/lite/core/subgraph.cc ("Replacing"). Flags and figures are explained in
tensorflow/lite/tools/benchmark/README.md, https://github.com/tensorflow/tensorflow. Outputs of real
phones stand in issues 43541, 56301 and 47859 there.
"""

import re

from ..engines.base import Placement
from .base import Measurement

# The name as the program writes it, and the flag that asks for it.
DELEGATES = {
    "xnnpack": ("XNNPACK", "--use_xnnpack=true"),
    "gpu": ("GPU", "--use_gpu=true"),
    "nnapi": ("NNAPI", "--use_nnapi=true"),
}
NUMBER = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
SUMMARY = re.compile(rf"Inference timings in us: Init: {NUMBER},.*Inference \(avg\): {NUMBER}")
MEMORY = re.compile(rf"[Mm]emory footprint.*\(MB\): init={NUMBER} overall={NUMBER}")
REPLACING = re.compile(
    r"Replacing (\d+) out of (\d+) node\(s\) with delegate \((\w+)\) node, yielding (\d+) partition"
)


def read(said: str, delegate: str, by: str) -> Measurement:
    r"""Read the figures of a run that ended well.

    >>> from tfcompress.edge.targets.benchmark_model import read
    >>> found = read(
    ...     "count=50 first=119 curr=118 min=113 max=124 avg=119.5 std=19\n"
    ...     "Inference timings in us: Init: 870, First inference: 130, Warmup (avg): 122, "
    ...     "Inference (avg): 119.5",
    ...     "xnnpack",
    ...     "benchmark_model",
    ... )
    >>> found.runs, found.mean_ms, found.median_ms
    (50, 0.1195, None)

    Args:
        said: What the program printed.
        delegate: The delegate that it was asked for: "xnnpack", "gpu" or "nnapi".
        by: Who measured, for the report.

    Returns:
        The figures.

    Raises:
        ValueError: It printed no latency, or the GPU or NNAPI took no op, so that the latency is
            that of the CPU.
    """
    counts = re.findall(r"count=\d+ .*", said)
    summary = SUMMARY.search(said)
    if summary is None or not counts:
        raise ValueError(f"benchmark_model printed no latency. It said: {last_words(said)}")
    figures = {
        name: float(value) for name, value in re.findall(rf"(\w+)={NUMBER}", counts[-1])
    }  # the first line of counts is that of the warm-up
    mean = figures.get("avg", figures["curr"])  # runs that took equally long have no more than curr
    metrics: dict[str, float | int | str] = {}
    if (memory := MEMORY.search(said)) is not None:
        metrics["memory MiB"] = float(memory[2])
    metrics["max ms"] = figures.get("max", mean) / 1e3
    placement, taken = _taken(said, delegate)
    if taken:
        metrics["delegated"] = taken
    return Measurement(
        by=by,
        placement=placement,
        load_ms=float(summary[1]) / 1e3,
        runs=int(figures["count"]),
        mean_ms=mean / 1e3,
        min_ms=figures.get("min", mean) / 1e3,
        std_ms=figures.get("std", 0.0) / 1e3,
        median_ms=figures["median"] / 1e3 if "median" in figures else None,
        metrics=metrics,
    )


def _taken(said: str, delegate: str) -> tuple[Placement | None, str]:
    """Return what the delegate took: a placement where the program counts, else words."""
    label = DELEGATES[delegate][0]
    applied = re.search(rf"Explicitly applied {label} delegate.*?(completely|partially)(.*)", said)
    if applied is None and delegate != "xnnpack":
        raise ValueError(
            f"the {label} took no op of it: its latency would be that of the CPU. benchmark_model "
            f"said: {_about(said, label)}"
        )
    for taken, total, name, partitions in REPLACING.findall(said):
        if label.lower() in name.lower():
            return Placement(delegate, int(total), int(taken), int(partitions)), ""
    if applied is None:
        return None, ""
    pieces = re.search(r"w/ (\d+) delegate kernels", applied[2])
    return None, "all ops" if pieces is None else f"{pieces[1]} pieces, not all ops"


def _about(said: str, label: str) -> str:
    lines = [line.strip() for line in said.splitlines() if f"{label} " in line]
    return lines[-1] if lines else "nothing of it"


def last_words(said: str) -> str:
    """Return the last lines of an output, where the reason of a failure stands."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return "; ".join(lines[-3:])[-400:] or "nothing"
