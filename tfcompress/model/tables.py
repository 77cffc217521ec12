"""Tables in the package's one style, as text too, and numbers that are short enough for them."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = ["as_text", "new_console", "new_table", "printable", "scaled"]


def new_table(
    columns: Sequence[str],
    *,
    numbers: Collection[str] = (),
    total: Sequence[str] = (),
    title: str | None = None,
    caption: str | None = None,
    wrap: bool = False,
    longest: int | None = None,
) -> Table:
    """Return an empty rich table in the style of all tables of this package.

    >>> table = new_table(["Layer", "Weights"], numbers=["Weights"], total=["Total", "36"])
    >>> table.add_row("head", "36")
    >>> print(as_text(table, width=20))
    <BLANKLINE>
     Layer  Weights
     ──────────────
     head        36
    <BLANKLINE>
     Total       36
    <BLANKLINE>

    Args:
        columns: Headings. Text stands at the left and folds where it is too long.
        numbers: The headings of columns with numbers, which stand at the right. Defaults to none.
        total: Cells of the last row, one for each column. Defaults to no such row.
        title: Title above the table. Defaults to None.
        caption: Notes below the table. Defaults to None.
        wrap: Whether numbers may wrap where there is no room, at spaces. Defaults to False.
        longest: Characters of the first column, whose text is cut there. Defaults to None, folds.

    Returns:
        `rich.table.Table`; its `add_row` takes a cell for each column.
    """
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_footer=bool(total),
        title=title,
        caption=caption,
    )
    footers = total or [""] * len(columns)
    for name, footer in zip(columns, footers, strict=True):
        if name in numbers:
            table.add_column(name, footer, justify="right", no_wrap=not wrap)
        else:
            table.add_column(name, footer, overflow="fold")
    if longest is not None:
        first = table.columns[0]
        first.overflow, first.no_wrap, first.max_width = "ellipsis", True, longest
    return table


def printable(text: str) -> str:
    r"""Replace characters that a terminal would obey by their escapes.

    Names come from files, and files from anywhere.

    >>> printable("head\x1b[31m")
    'head\\x1b[31m'

    Args:
        text: A text of one line or several.

    Returns:
        The text, with its line breaks.
    """
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def new_console(**options: Any) -> Console:
    """Return a rich console that shows names as they are: brackets, colons, and escapes as text.

    Args:
        **options: Arguments of `rich.console.Console`, such as `width=100`.

    Returns:
        The console.
    """
    from rich.console import Console

    class Plain(Console):
        def render_str(self, text: str, **given: Any) -> Text:
            return super().render_str(printable(text), **given)

    return Plain(markup=False, emoji=False, highlight=False, **options)


def as_text(*parts: Any, width: int) -> str:
    """Return what rich prints, as plain text: identical in a terminal, a file and a notebook.

    Names are shown as they are, with square brackets and colons.

    >>> as_text("conv[a] :smile:", width=40)
    'conv[a] :smile:'

    Args:
        *parts: Texts and rich's renderables, each on lines of its own.
        width: Number of characters in a line.

    Returns:
        The text, without trailing spaces.
    """
    stream = io.StringIO()
    console = new_console(
        file=stream, width=width, color_system=None, force_terminal=False, force_jupyter=False
    )
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def scaled(number: float, unit: str = "") -> str:
    """Return a number with about three significant digits and a metric prefix.

    >>> scaled(3_870_000_000), scaled(144, "B")
    ('3.87 G', '144 B')

    Args:
        number: A number of at least 0.
        unit: Unit that follows the prefix. Defaults to none.

    Returns:
        The text.
    """
    for prefix in ("", "k", "M", "G"):
        if number < 999.5 or prefix == "G":
            break
        number /= 1000
    digits = 0 if prefix == "" else max(0, 2 - len(str(int(number))) + 1)
    return f"{number:.{digits}f} {prefix}{unit}".rstrip()
