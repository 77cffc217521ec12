"""The Python files that docs/extending.md shows."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def example(name: str) -> str:
    """Return the text of the file that the page shows under this name, such as "my_device.py"."""
    blocks = (block for kind, block in BLOCK.findall(PAGE.read_text("utf-8")) if kind == "python")
    return next(block for block in blocks if block.startswith(f"# {name}\n"))
