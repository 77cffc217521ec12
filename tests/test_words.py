"""Docstrings keep one style: plain words, arguments that stand alone, and bare examples."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from types import ModuleType

import pytest

import tfcompress
from tests.test_house import ROOT, SOURCES
from tfcompress import converters, distill, edge

UNCLEAR = re.compile(r"\blikewise\b|\bas for [a-z`]|\bof which\b", re.IGNORECASE)
NO_VERB = {"a", "all", "an", "each", "every", "how", "one", "the", "what", "where", "whether"}
POINTER = re.compile(
    r"^(as|like|likewise|same|see|the same)\b|[;,] (as for|as in|see) `|\bas (above|below)\b",
    re.IGNORECASE,
)

Docstring = tuple[str, ast.AST, str]


def docstrings(text: str, file: str) -> Iterator[Docstring]:
    """Yield the place, the definition and the docstring of a module and of all that it defines."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found = ast.get_docstring(node)
            if found:
                yield f"{file}:{getattr(node, 'lineno', 1)}", node, found


def entries(docstring: str) -> Iterator[str]:
    """Yield the entries of `Args` and `Attributes`, each on one line."""
    for section in re.findall(r"^(?:Args|Attributes):\n((?: +.*\n?)+)", docstring, re.MULTILINE):
        lines = textwrap.dedent(section)
        yield from (re.sub(r"\s+", " ", entry) for entry in re.split(r"\n(?=\S)", lines))


def unclear(docstring: str) -> list[str]:
    return UNCLEAR.findall(docstring)


def pointers(docstring: str) -> list[str]:
    return [e for e in entries(docstring) if POINTER.search(e.partition(": ")[2])]


def without_verb(node: ast.AST, docstring: str) -> bool:
    is_public = isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    return is_public and docstring.split()[0].lower().rstrip(",") in NO_VERB


def misplaced_examples(docstring: str) -> list[str]:
    """Return headings of examples, and paragraphs in which an example does not come first."""
    headings = re.findall(r"^ *Examples?: *$", docstring, re.MULTILINE)
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", docstring)]
    return headings + [p for p in paragraphs if ">>> " in p and not p.startswith(">>> ")]


DOCSTRINGS = [
    found
    for file in SOURCES
    for found in docstrings(file.read_text("utf-8"), str(file.relative_to(ROOT)))
]


def test_docstrings_are_found():
    files = {place.partition(":")[0] for place, _, _ in DOCSTRINGS}
    assert {"tfcompress/pruning/prune.py", "converters/conversion.py", "edge/runner.py"} <= files
    assert sum(1 for _, _, text in DOCSTRINGS for _ in entries(text)) > 1000


def test_docstrings_use_plain_words():
    assert [(place, found) for place, _, text in DOCSTRINGS if (found := unclear(text))] == []


def test_argument_entries_stand_alone():
    assert [(place, found) for place, _, text in DOCSTRINGS if (found := pointers(text))] == []


def test_docstrings_of_functions_begin_with_a_verb():
    assert [place for place, node, text in DOCSTRINGS if without_verb(node, text)] == []


def test_examples_have_no_heading_and_follow_a_blank_line():
    wrong = [(place, found) for place, _, text in DOCSTRINGS if (found := misplaced_examples(text))]
    assert wrong == []


def public(module: ModuleType) -> list[tuple[str, object]]:
    """Return the public names of a package that need an example: no modules, no errors."""
    objects = [(name, getattr(module, name)) for name in module.__all__]
    return [
        (f"{module.__name__}.{name}", item)
        for name, item in objects
        if not isinstance(item, ModuleType)
        and not (isinstance(item, type) and issubclass(item, Exception))
    ]


@pytest.mark.parametrize("module", [tfcompress, converters, distill, edge])
def test_public_names_have_a_runnable_example(module):
    names = public(module)
    assert names
    assert [name for name, item in names if ">>> " not in (inspect.getdoc(item) or "")] == []


BAD = '''
def width(layer, axis, depth):
    """The width, likewise the depth, of which one counts.
    >>> width(1, 2, 3)

    Example:
    >>> width(1, 2, 3)

    Args:
        layer: As for `height`.
        axis: Which axis to read, a number; see
            `height`. Defaults to 0.
        depth: Seed of the generator, see the paper. Defaults to 0.
    """
'''


def test_the_checks_find_each_fault_in_a_bad_docstring():
    [(place, node, text)] = docstrings(BAD, "bad.py")
    assert place == "bad.py:2"
    assert unclear(text) == ["likewise", "of which", "As for `"]
    assert [entry.partition(":")[0] for entry in pointers(text)] == ["layer", "axis"]
    assert without_verb(node, text)
    heading, *paragraphs = misplaced_examples(text)
    assert heading == "Example:"
    assert [part.split()[0] for part in paragraphs] == ["The", "Example:"]
