"""Draw the pictures of the pages from the measured tables in docs/measurements.

python docs/scripts/pictures.py
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parents[1]
LABELS, PANEL, GAP, ROW, TOP = 262, 190, 26, 34, 58
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.page { fill: white } .title { font-weight: 600 } .quiet { fill: #57606a } .track { fill: #eaeef2 }
.bytes { fill: #4c6ef5 } .speed { fill: #2b8a3e }
@media (prefers-color-scheme: dark) {
  .page { fill: #161b22 } text { fill: #e6edf3 } .quiet { fill: #9198a1 } .track { fill: #2f3742 }
  .bytes { fill: #748ffc } .speed { fill: #51cf66 } }
"""


class Picture(NamedTuple):
    """Rows of a measured table to show: bytes and accuracy, and speed if the table has it.

    Attributes:
        title: What the rows have in common.
        page: Page of docs/measurements with the table.
        first: Beginning of the first cell of the first row.
        rows: Which rows to show, counted from that one.
        size: Title of the column with the bytes.
        speed: Title of the column with the speed, or None.
    """

    title: str
    page: str
    first: str
    rows: tuple[int, ...]
    size: str
    speed: str | None = None


PICTURES = {
    "recipe": Picture(
        "ResNet-20 on CIFAR-10, from Keras to the device",
        "recipe_cifar10", "ResNet-20", (0, 1, 2, 3), "bytes", "speed",
    ),
    "channels": Picture(
        "Fewer channels: a MobileNet-like net on CIFAR-10",
        "recipe_cifar10", "MobileNet-like", (0, 2, 3), "bytes", "speed",
    ),
    "quantization": Picture(
        "Fewer bits: a CNN on MNIST", "mnist", "dense float32", (0, 1, 2, 3), "bytes", "speed-up"
    ),
    "zeros": Picture(
        "Zeros, as they are stored by default: a CNN on MNIST",
        "mnist", "dense float32", (0, 4, 6), "bytes", "speed-up",
    ),
    "sparse": Picture(
        "Zeros, stored sparse: a CNN on MNIST",
        "sparse_files", "CNN", (0, 1, 2, 3), "stored sparse",
    ),
}  # fmt: skip


class Row(NamedTuple):
    """What a row of a table says of a file."""

    label: str
    bytes: float
    accuracy: str
    speed: float | None


def table(page: str, columns: set[str]) -> list[dict[str, str]]:
    """Return the rows of the first table of a page of measurements that has these columns."""
    text = (DOCS / "measurements" / f"{page}.md").read_text("utf-8")
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = block.replace("**", "").splitlines()
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        titles = [title.partition(",")[0] for title in rows[0]]
        if columns <= set(titles):
            return [dict(zip(titles, row, strict=True)) for row in rows[2:]]
    raise ValueError(f"No table of {page}.md has the columns {sorted(columns)}.")


def rows_of(picture: Picture) -> list[Row]:
    """Return what a picture shows, read off its table."""
    found = table(picture.page, {"accuracy", picture.size, picture.speed or "accuracy"})
    firsts = [next(iter(row.values())) for row in found]
    start = next(i for i, first in enumerate(firsts) if first.startswith(picture.first))
    # Sparse files are in kB, with the gzipped size behind a stroke.
    unit = 1000 if picture.page == "sparse_files" else 1
    return [
        Row(
            firsts[start + i],
            number(found[start + i][picture.size]) * unit,
            found[start + i]["accuracy"].split()[0],
            number(found[start + i][picture.speed]) if picture.speed else None,
        )
        for i in picture.rows
    ]


def number(cell: str) -> float:
    """Return the first number of a cell, such as 1106028 of "1,106,028"."""
    return float(re.split(r"[^\d.,]", cell)[0].replace(",", ""))


def draw(picture: Picture) -> str:
    """Return a picture as SVG: one row a file, with bars for bytes and speed."""
    rows = rows_of(picture)
    largest = max(row.bytes for row in rows)
    fastest = max(row.speed or 0 for row in rows)
    panels = ["bytes"] + ["speed"] * (picture.speed is not None)
    width = LABELS + len(panels) * (PANEL + GAP) + 70
    height = TOP + ROW * len(rows) + 6
    parts = [text(0, 16, picture.title, "title")]
    titles = {"bytes": "size of the .tflite", "speed": "speed"}
    for place, panel in enumerate(panels):
        parts.append(text(LABELS + place * (PANEL + GAP), 42, titles[panel], "quiet"))
    parts.append(text(width - 62, 42, "accuracy", "quiet"))
    for line, row in enumerate(rows):
        y = TOP + ROW * line
        parts.append(text(0, y + 15, row.label))
        shown = {"bytes": (row.bytes / largest, size(row, rows[0]))}
        if row.speed is not None:
            shown["speed"] = (row.speed / fastest, f"{row.speed:.2f}x")
        for place, (panel, (share, label)) in enumerate(shown.items()):
            x = LABELS + place * (PANEL + GAP)
            parts.append(bar(x, y + 19, 1, "track") + bar(x, y + 19, share, panel))
            parts.append(text(x, y + 13, label))
        parts.append(text(width - 62, y + 15, row.accuracy))
    # A page of its own: a site may be dark where the system, whose colours these are, is light.
    frame = f'x="-14" y="-8" width="{width + 28}" height="{height + 16}"'
    parts.insert(0, f'<rect class="page" {frame} rx="6"/>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-14 -8 {width + 28} {height + 16}" '
        'role="img" '
        f'aria-label="{escape(picture.title)}">\n<style>{STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def size(row: Row, original: Row) -> str:
    """Return "107 kB, 10.3x smaller"; the size alone if it is not smaller, or known in kB only."""
    smaller = original.bytes / row.bytes if row.bytes % 1000 else 1.0
    return f"{row.bytes / 1000:,.0f} kB" + (f", {smaller:.1f}x smaller" if smaller > 1.04 else "")


def text(x: float, y: float, content: str, kind: str = "") -> str:
    """Return a text that begins at a place."""
    attribute = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}"{attribute}>{escape(content)}</text>'


def bar(x: float, y: float, share: float, kind: str) -> str:
    """Return a bar that is a share of a panel wide."""
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{PANEL * share:.1f}" height="8" rx="2"/>'


def main() -> None:
    """Write all pictures."""
    for name, picture in PICTURES.items():
        (DOCS / "pictures" / f"{name}.svg").write_text(draw(picture), "utf-8")


if __name__ == "__main__":
    main()
