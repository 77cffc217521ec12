"""The plots of a report, as SVG elements for a page.

Text and lines have the page's text colour, so that they are legible on light and on dark ground.
"""

import io
import math
import re
import warnings
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from ..results import BenchmarkResult
from .columns import milliseconds, one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# After Okabe and Ito: distinguishable with any colour vision and on either ground. They repeat with
# other markers.
_COLOURS = ("#0080d0", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c", "#b8ab00")
_MARKERS = "osD^vPX*"

# A placeholder for the page's text colour while matplotlib draws.
_INK = "#010203"


def latency_svg(results: Sequence[BenchmarkResult]) -> str:
    """Draw a bar for each median latency, with whiskers from the 10th to the 90th percentile.

    Args:
        results: The results. Those without a latency are left out.

    Returns:
        An `<svg>` element, or an empty text where no result has a latency.

    Raises:
        ImportError: matplotlib is not installed.
    """
    shown = [(i, r) for i, r in enumerate(results) if r.median_ms is not None]
    if not shown:
        return ""
    figure = _figure(0.9 + 0.34 * len(shown))
    axes = figure.add_subplot()
    names, values, whiskers = [], [], []
    for _, result in shown:
        median = result.median_ms or 0.0
        low = median if result.p10_ms is None else min(result.p10_ms, median)
        high = median if result.p90_ms is None else max(result.p90_ms, median)
        names.append(_short(result.name) + (" (emulated)" if result.emulated else ""))
        values.append(median)
        whiskers.append((median - low, high - median))
    places = list(range(len(shown)))
    axes.barh(
        places,
        values,
        xerr=[[low for low, _ in whiskers], [high for _, high in whiskers]],
        color=[_COLOURS[i % len(_COLOURS)] for i, _ in shown],
        ecolor=_INK,
        capsize=3,
        error_kw={"linewidth": 1},
        height=0.66,
    )
    end = max(value + high for value, (_, high) in zip(values, whiskers, strict=True))
    for place, value, (_, high) in zip(places, values, whiskers, strict=True):
        axes.text(
            value + high + 0.02 * end, place, milliseconds(value), va="center", color=_INK, size=9
        )
    axes.set_xlim(0, end * 1.2)
    axes.locator_params(axis="x", nbins=4)
    axes.set_yticks(places, names, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds: median, 10th to 90th percentile")
    said = ", ".join(
        f"{name} {milliseconds(value)} ms" for name, value in zip(names, values, strict=True)
    )
    return _svg(figure, axes, "latency", f"Bar chart of the median latency: {said}")


def accuracy_svg(results: Sequence[BenchmarkResult]) -> str:
    """Draw size against accuracy: a filled mark for the file, a hollow one for its gzip.

    Args:
        results: The results. Those without the metric `accuracy` are left out.

    Returns:
        An `<svg>` element, or an empty text where no result has an accuracy.

    Raises:
        ImportError: matplotlib is not installed.
    """
    shown = [
        (index, result, float(result.metrics["accuracy"]))
        for index, result in enumerate(results)
        if isinstance(result.metrics.get("accuracy"), int | float)
        and math.isfinite(float(result.metrics["accuracy"]))
        and result.bytes is not None
    ]
    if not shown:
        return ""
    rows = (len(shown) + 1) // 2
    figure = _figure(3.0 + 0.2 * rows)
    axes = figure.add_subplot()
    for index, result, accuracy in shown:
        colour = _COLOURS[index % len(_COLOURS)]
        marker = _MARKERS[index // len(_COLOURS) % len(_MARKERS)]
        size = (result.bytes or 0) / 1024
        if result.gzip_bytes is not None:
            packed = result.gzip_bytes / 1024
            axes.plot([packed, size], [100 * accuracy] * 2, color=colour, linewidth=1, alpha=0.6)
            axes.plot(packed, 100 * accuracy, marker, color=colour, markersize=7, fillstyle="none")
        (mark,) = axes.plot(size, 100 * accuracy, marker, color=colour, markersize=7)
        # A label that begins with an underscore would be left out of the legend.
        mark.set_label("\u200b" + _short(result.name))
    axes.set_xlim(left=0)
    axes.margins(y=0.15)
    axes.set_xlabel("KiB: filled the file, hollow its gzip")
    axes.set_ylabel("accuracy, %")
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid(color=_INK, alpha=0.15, linewidth=0.6)
    legend = figure.legend(
        loc="outside lower center", ncols=2, frameon=False, labelcolor=_INK, fontsize=9
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    said = ", ".join(
        f"{_short(r.name)} {100 * accuracy:.2f} % at {(r.bytes or 0) / 1024:.1f} KiB"
        for _, r, accuracy in shown
    )
    return _svg(figure, axes, "accuracy", f"Scatter plot of size against accuracy: {said}")


def _figure(height: float) -> "Figure":
    try:
        # Not pyplot: it would choose a backend for the whole process.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "The plots of an HTML report need matplotlib: pip install matplotlib"
        ) from error
    return Figure(figsize=(5.4, height), layout="constrained")


def _svg(figure: "Figure", axes: Any, name: str, description: str) -> str:
    import matplotlib

    axes.set_facecolor("none")
    axes.tick_params(colors=_INK, labelsize=9, length=3)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(_INK)
        label.set_size(9)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_edgecolor(_INK)
        spine.set_alpha(0.4)
    buffer = io.StringIO()
    # "none": text stays text. The salt makes the ids of the two plots in one page differ.
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"tfcompress-{name}"}),
        warnings.catch_warnings(),
    ):
        # Browsers draw the text with their own fonts; matplotlib only measures it with its own.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(rf"(fill|stroke): {_INK}", r"\1: currentColor", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1)


def _short(name: str) -> str:
    name = one_line(name)
    return name if len(name) <= 28 else f"{name[:18]}…{name[-9:]}"
