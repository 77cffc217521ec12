"""What benchmarks print: tables, and their targets with what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def show(console: Console, checks: Sequence[dict[str, Any]]) -> bool:
    """Print each check: its "target", what was "measured", and whether it "passed".

    Returns:
        Whether all passed.
    """
    for check in checks:
        verdict = "[green]pass[/]" if check["passed"] else "[red]FAIL[/]"
        console.print(f"{verdict} {check['target']}: {check['measured']:.2f}", highlight=False)
    return all(check["passed"] for check in checks)


def new_table(title: str, first: str, *columns: str, caption: str | None = None) -> Table:
    """A table with numbers to the right."""
    out = Table(title=title, caption=caption, box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    out.add_column(first, no_wrap=True)
    for column in columns:
        out.add_column(column, justify="right", no_wrap=True)
    return out
