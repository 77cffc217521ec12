"""The columns of a report, in every format."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..results import BenchmarkResult, Metric

NOTHING = "-"


@dataclass(frozen=True)
class Column:
    """A column of a report.

    Attributes:
        title: The heading.
        cell: Returns the text in the row of a result.
        numeric: Whether the texts are numbers, which are right-aligned and stay on one line.
            Defaults to True.
        brief: Returns a shorter text, for terminals; None takes `cell`. Defaults to None.
    """

    title: str
    cell: Callable[[BenchmarkResult], str]
    numeric: bool = True
    brief: Callable[[BenchmarkResult], str] | None = None


def columns(results: Sequence[BenchmarkResult]) -> list[Column]:
    """Choose the columns for some results: those in which at least one result has a value.

    Args:
        results: The results.

    Returns:
        The columns, from left to right.
    """
    known = {name for result in results for name in result.metrics}
    extra = [name for name in _in_order(results) if name not in ("zeros", "accuracy", "parity")]
    metrics = [name for name in ("zeros", "accuracy", "parity") if name in known] + extra
    chosen = [
        Column("model", lambda result: one_line(result.name), numeric=False),
        Column("KiB", lambda result: _kib(result.bytes)),
        Column("gzip KiB", lambda result: _kib(result.gzip_bytes)),
    ]
    chosen += [_metric(name, _is_short(name, results)) for name in metrics]
    if any(_typical_ms(result) is not None for result in results):
        chosen += [
            _latency("median ms", _typical_ms),
            _latency("p90 ms", lambda result: result.p90_ms),
        ]
    if len(results) > 1 and any(result.speedup is not None for result in results):
        chosen.append(Column("speed-up", _speedup, brief=_brief_speedup))
    return [*chosen, Column("ran on", _ran_on, numeric=False)]


def notes(results: Sequence[BenchmarkResult]) -> list[str]:
    """Explain the columns, and name the machines.

    Args:
        results: The results.

    Returns:
        Sentences: first on the columns, then on the machines.
    """
    said = ["Sizes are those of the .tflite file as it ships, and after gzip."]
    measured = [result for result in results if result.runs]
    if measured:
        runs = [result.runs for result in measured]
        span = str(runs[0]) if min(runs) == max(runs) else f"{min(runs)} to {max(runs)}"
        said.append(f"Latencies are of one run, over {span} runs each, in a process of its own.")
    if len(results) > 1 and any(result.speedup is not None for result in results):
        said.append(
            f"Speed-ups are over {_firsts(results)}: the median over interleaved "
            "rounds, with their 10th to 90th percentile."
        )
    if any(result.emulated for result in results):
        said.append(
            "(emulated), or *: run by an emulator or a software GPU; such latencies mean nothing."
        )
    for source in dict.fromkeys(r.estimated_by for r in results if r.estimated_by):
        said.append(f"(estimated), or ~: no device ran the file. Figures by {one_line(source)}.")
    for source in dict.fromkeys(r.measured_by for r in results if r.measured_by):
        said.append(
            f"Measured by {one_line(source)}, one file after the other; outputs were not compared."
        )
    machines = {str(result.machine).rpartition(", ")[0] for result in results if result.machine}
    said += [f"Measured on {machine}." for machine in sorted(machines)]
    dates = sorted(result.machine.date for result in results if result.machine)
    if dates:
        said.append(f"Date: {dates[0]}.")
    return said


def _firsts(results: Sequence[BenchmarkResult]) -> str:
    names = [result.speedup_over for result in results if result.speedup is not None]
    return " or ".join(repr(one_line(name)) for name in dict.fromkeys(names))


def _in_order(results: Sequence[BenchmarkResult]) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in result.metrics))


def one_line(text: str) -> str:
    """Replace line breaks and control characters, which a terminal would obey, by spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _kib(size: int | None) -> str:
    return NOTHING if size is None else f"{size / 1024:.1f}"


def milliseconds(value: float) -> str:
    """Format with three significant digits, at most four decimals: `0.0011`, `1.23`, `457`."""
    if not math.isfinite(value) or value <= 0:
        return str(value)
    return f"{value:.{min(4, max(0, 2 - math.floor(math.log10(value))))}f}"


def _latency(title: str, value: Callable[[BenchmarkResult], float | None]) -> Column:
    def cell(emulated: str, estimated: str) -> Callable[[BenchmarkResult], str]:
        def text(result: BenchmarkResult) -> str:
            found = value(result)
            if found is None:
                return NOTHING
            if result.median_ms is None:
                return f"{milliseconds(found)} (mean)"
            mark = emulated if result.emulated else estimated if result.estimated_by else ""
            return milliseconds(found) + mark

        return text

    return Column(title, cell(" (emulated)", " (estimated)"), brief=cell("*", "~"))


def _typical_ms(result: BenchmarkResult) -> float | None:
    # Older releases of benchmark_model tell the mean alone.
    return result.mean_ms if result.median_ms is None else result.median_ms


def _speedup(result: BenchmarkResult) -> str:
    if result.speedup is None or result.speedup_p10 is None or result.speedup_p90 is None:
        return NOTHING
    if result.speedup == result.speedup_p10 == result.speedup_p90:
        return f"{result.speedup:.2f}x"
    return f"{result.speedup:.2f}x ({result.speedup_p10:.2f} to {result.speedup_p90:.2f})"


def _brief_speedup(result: BenchmarkResult) -> str:
    return NOTHING if result.speedup is None else f"{result.speedup:.2f}x"


def _ran_on(result: BenchmarkResult) -> str:
    if not result.ok:
        place = "" if result.target == "local" else f" on {result.target}"
        return one_line(f"{result.status}{place}: {result.reason}")
    unknown = result.delegate if result.measured_by else "unknown"
    where = str(result.placement) if result.placement else unknown
    if result.estimated_by:
        where += " (estimated)"
    return one_line(where if result.target == "local" else f"{where} on {result.target}")


def _is_short(name: str, results: Sequence[BenchmarkResult]) -> bool:
    return all(len(str(result.metrics.get(name, ""))) <= 24 for result in results)


def _metric(name: str, numeric: bool) -> Column:
    def cell(result: BenchmarkResult) -> str:
        value = result.metrics.get(name)
        return NOTHING if value is None else _value(name, value)

    return Column(one_line(name), cell, numeric)


def _value(name: str, value: Metric) -> str:
    if isinstance(value, str):
        return one_line(value)
    if name == "zeros":
        return f"{value:.1%}"
    if name == "accuracy":
        return f"{value:.2%}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
