"""The targets of a benchmark, each with what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console


def show(console: Console, checks: Sequence[dict[str, Any]]) -> bool:
    """Print each check: its "target", what was "measured", and whether it "passed".

    Returns:
        Whether all passed.
    """
    for check in checks:
        verdict = "[green]pass[/]" if check["passed"] else "[red]FAIL[/]"
        console.print(f"{verdict} {check['target']}: {check['measured']:.2f}", highlight=False)
    return all(check["passed"] for check in checks)
