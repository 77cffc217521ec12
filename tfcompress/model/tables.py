"""rich's tables as plain text, and numbers that are short enough for them."""

from __future__ import annotations

import io
from typing import Any


def as_text(*parts: Any, width: int) -> str:
    """What rich prints, as text: the same in a terminal, in a file and in a notebook.

    Names are shown as they are, square brackets and colons too.

    Example:
    >>> as_text("conv[a] :smile:", width=40)
    'conv[a] :smile:'

    Args:
        *parts: Texts and rich's renderables, each on lines of its own.
        width: Columns.

    Returns:
        The text, without trailing spaces.
    """
    from rich.console import Console

    stream = io.StringIO()
    console = Console(
        file=stream, width=width, color_system=None, force_terminal=False, force_jupyter=False,
        markup=False, emoji=False, highlight=False,
    )  # fmt: skip
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def scaled(number: float, unit: str = "") -> str:
    """A number with three significant digits or so and a metric prefix.

    Example:
    >>> scaled(3_870_000_000), scaled(144, "B")
    ('3.87 G', '144 B')

    Args:
        number: At least 0.
        unit: What follows the prefix.

    Returns:
        The text.
    """
    for prefix in ("", "k", "M", "G"):
        if number < 999.5 or prefix == "G":
            break
        number /= 1000
    digits = 0 if prefix == "" else max(0, 2 - len(str(int(number))) + 1)
    return f"{number:.{digits}f} {prefix}{unit}".rstrip()
