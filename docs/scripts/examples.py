"""Examples in docstrings as blocks of code: in plain Markdown, `>>>` begins a quotation."""

from __future__ import annotations

import re
from typing import Any

import griffe

PARAGRAPH = re.compile(r"(?:^[ \t]*>>> .*\n?)(?:^[ \t]*\S.*\n?)*", re.MULTILINE)


def fenced(text: str) -> str:
    r"""Return a docstring with its examples in fences.

    >>> fenced("Double it.\n\n>>> double(2)\n4\n\nArgs:")
    'Double it.\n\n```pycon\n>>> double(2)\n4\n```\n\nArgs:'
    """
    return PARAGRAPH.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text)


class Examples(griffe.Extension):
    """Put the examples of each docstring in fences."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of an object that was read."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
