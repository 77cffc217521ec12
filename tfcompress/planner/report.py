"""The result as one HTML page that loads no script, font or picture."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from tfcompress.converters.file.read import inspect

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


def html_report(
    name: str,
    said: Sequence[str],
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    front: Sequence[str],
    file: Path,
    code: str,
) -> str:
    """Return the page: the verdict, the front, all that was tried, the largest tensors, the code.

    Args:
        name: Name of the model.
        said: The verdict, in paragraphs.
        columns: Headings of the table.
        rows: Cells of the table.
        front: First cells of the rows than which no other is better in all respects.
        file: The best file.
        code: The script that makes it again.

    Returns:
        A whole HTML document.
    """
    tensors = [tensor for tensor in inspect(file).tensors if tensor.constant]
    tensors = sorted(tensors, key=lambda tensor: -tensor.bytes)[:_LARGEST]
    sizes = [
        [t.name or "(stored without a name)", t.dtype, "x".join(map(str, t.shape)), f"{t.bytes:,}"]
        for t in tensors
    ]
    paragraphs = "".join(f"<p>{escape(text)}</p>\n" for text in said)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Compression of {escape(name)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Compression of {escape(name)}</h1>
{paragraphs}
<h2>The front: nothing is better in all respects</h2>
{_table(columns, [row for row in rows if row[0] in front])}
<h2>All that was tried</h2>
{_table(columns, rows)}
<h2>The largest tensors of the best file</h2>
{_table(["Tensor", "Type", "Shape", "Bytes"], sizes)}
<h2>The best file again, without the planner</h2>
<pre>{escape(code)}</pre>
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
