"""The result as one HTML page that loads no script, font or picture."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from tfcompress.converters.file.read import inspect

if TYPE_CHECKING:
    from .result import Compression

__all__ = ["html_report"]

_STYLE = """
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 3rem; color: #1d2530;
       font: 16px/1.5 system-ui, sans-serif; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { padding: .4rem .6rem; text-align: left; border-top: 1px solid #dde2e9; }
thead th { background: #f6f8fa; }
.number { text-align: right; white-space: nowrap; }
pre { background: #f6f8fa; padding: 1rem; overflow-x: auto; }
"""
_LARGEST = 20
"""Tensors of the best file that are listed."""


def html_report(result: Compression) -> str:
    """Return the page: the verdict, the front, all that was tried, the largest tensors, the code.

    Args:
        result: What `compress` found.

    Returns:
        A whole HTML document.
    """
    columns = ["What", "Bytes", "Smaller", result.bench.metric.name, "Lost", "ms", "Faster", ""]
    table, front = result.rows(), {outcome.recipe.label() for outcome in result.pareto}
    tensors = [tensor for tensor in inspect(result.best.file).tensors if tensor.constant]
    tensors = sorted(tensors, key=lambda tensor: -tensor.bytes)[:_LARGEST]
    sizes = [
        [t.name or "(stored without a name)", t.dtype, "x".join(map(str, t.shape)), f"{t.bytes:,}"]
        for t in tensors
    ]
    tests = ""
    if result.best.test is not None and result.original_test is not None:
        metric = result.bench.metric
        tests = (
            f"<p>On test data, by which nothing was chosen: {metric.text(result.best.test)}, the "
            f"original {metric.text(result.original_test)}.</p>"
        )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Compression of {escape(result.bench.model.name)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Compression of {escape(result.bench.model.name)}</h1>
<p>{escape(result.why)}</p>
{tests}
<h2>The front: nothing is better in all respects</h2>
{_table(columns, [row for row in table if row[0] in front])}
<h2>All that was tried</h2>
{_table(columns, table)}
<h2>The largest tensors of the best file</h2>
{_table(["Tensor", "Type", "Shape", "Bytes"], sizes)}
<h2>The best file again, without the planner</h2>
<pre>{escape(result.code())}</pre>
</body>
</html>
"""


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"


def _cell(text: str) -> str:
    number = text[:1].isdigit() or text[:1] == "-"
    kind = ' class="number"' if number else ""
    return f"<td{kind}>{escape(text)}</td>"
