"""A report as one HTML page that loads no script, font or picture."""

from collections.abc import Sequence
from html import escape

from ..results import BenchmarkResult
from .columns import columns, notes, one_line
from .plots import accuracy_svg, latency_svg

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --dim: #5c6877; --line: #dde2e9; --paper: #fff;
        --panel: #f6f8fa; --bad: #b42318; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e8ef; --dim: #97a3b3; --line: #303a47; --paper: #12171e; --panel: #1a212a;
          --bad: #ff8a7a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 3rem; background: var(--paper);
       color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1.25rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .6rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem;
        font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .65rem; text-align: left; white-space: nowrap; }
th { background: var(--panel); color: var(--dim); font-weight: 600; font-size: .82rem; }
tbody tr { border-top: 1px solid var(--line); }
tbody th { background: var(--paper); color: var(--ink); font-size: .92rem; position: sticky;
           left: 0; white-space: normal; overflow-wrap: anywhere; min-width: min(30vw, 11rem); }
.number { text-align: right; }
td:last-child { white-space: normal; min-width: 12rem; }
.failed td:last-child { color: var(--bad); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
         gap: 1rem; margin: 1.25rem 0; }
figure { margin: 0; padding: 1rem; border: 1px solid var(--line); border-radius: .6rem;
         background: var(--panel); }
figcaption { font-weight: 600; margin-bottom: .5rem; }
figure svg { display: block; width: 100%; height: auto; max-width: 36rem; margin: 0 auto; }
figure svg text { font-family: system-ui, -apple-system, "Segoe UI", sans-serif !important; }
ul { color: var(--dim); font-size: .88rem; padding-left: 1.2rem; }
"""


def html_page(title: str, results: Sequence[BenchmarkResult]) -> str:
    """Build the page.

    Args:
        title: The heading, as plain text.
        results: The results, in the order of the rows.

    Returns:
        A whole HTML document.
    """
    title = one_line(title)
    plots = "".join(
        f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"
        for caption, svg in (
            ("Size against accuracy", accuracy_svg(results)),
            ("Latency of one run", latency_svg(results)),
        )
        if svg
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<div class="scroll" tabindex="0" role="region" aria-label="Results">
{_table(results)}
</div>
<div class="plots">{plots}</div>
<ul>
{"".join(f"<li>{escape(note)}</li>" for note in notes(results))}
</ul>
</body>
</html>
"""


def _table(results: Sequence[BenchmarkResult]) -> str:
    chosen = columns(results)
    head = "".join(
        f'<th scope="col"{_class(column.numeric)}>{escape(column.title)}</th>' for column in chosen
    )
    body = ""
    for result in results:
        cells = "".join(
            f"<td{_class(column.numeric)}>{escape(column.cell(result))}</td>"
            for column in chosen[1:]
        )
        name = f'<th scope="row">{escape(chosen[0].cell(result))}</th>'
        row = "<tr>" if result.ok else '<tr class="failed">'
        body += f"{row}{name}{cells}</tr>\n"
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"


def _class(numeric: bool) -> str:
    return ' class="number"' if numeric else ""
