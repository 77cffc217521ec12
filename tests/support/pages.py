"""The pages that people read, and the code in them."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: \S.* -->\n\s*$")


class Block(NamedTuple):
    """A fenced block of a page: its language, its text, and whether a test runs it."""

    page: str
    line: int
    kind: str
    code: str
    runs: bool


def pages() -> list[Path]:
    """Return README and the pages of docs/."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path, kind: str) -> list[Block]:
    """Return the blocks of a page in a language.

    A block below the comment `<!-- not run: the reason -->` is not run.
    """
    text = page.read_text("utf-8")
    return [
        Block(
            str(page.relative_to(ROOT)),
            text.count("\n", 0, found.start()) + 2,
            kind,
            re.sub(rf"^{found[1]}", "", found[3], flags=re.MULTILINE),
            not NOT_RUN.search(text, 0, found.start()),
        )
        for found in FENCE.finditer(text)
        if found[2] == kind
    ]
