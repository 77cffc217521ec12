"""The worked examples of docs/extending.md do what the page says, through the command line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.examples import BLOCK, PAGE

SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.M | re.S))
FIRST, *EXAMPLES = SECTIONS
# The commands of a block, one after the other in one process, which imports TensorFlow once.
PROGRAM = """
import runpy, shlex, sys
from tfcompress.cli import main
for line in sys.stdin.read().replace("\\\\\\n", " ").splitlines():
    program, *arguments = shlex.split(line)
    try:
        if program == "python":
            runpy.run_path(*arguments, run_name="__main__")
        else:
            assert program == "tfcompress", line
            main(arguments)
    except SystemExit as end:
        if end.code:
            raise
"""


def follow(section: str, folder: Path) -> None:
    """Do what a section says: write its Python files, run its commands, compare what they print.

    The first line of a Python block names its file. A `text` block holds lines of the output of
    the commands before it.
    """
    printed = ""
    for kind, block in BLOCK.findall(SECTIONS[section]):
        if kind == "python":
            (folder / block.splitlines()[0].removeprefix("# ")).write_text(block, "utf-8")
        elif kind == "sh":
            done = subprocess.run(
                [sys.executable, "-P", "-c", PROGRAM],
                cwd=folder, env={**os.environ, "COLUMNS": "120"}, input=block,
                capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
            printed = done.stdout
        elif kind == "text":
            for line in block.splitlines():
                assert line.strip() in " ".join(printed.split()), printed


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with the model and the samples that the examples work on."""
    folder = tmp_path_factory.mktemp("extending")
    follow(FIRST, folder)
    return folder


@pytest.mark.slow("each example starts processes that import TensorFlow")
@pytest.mark.parametrize("section", EXAMPLES)
def test_the_example_works_as_the_page_says(section, prepared):
    follow(section, prepared)


def test_the_page_shows_the_five_additions():
    five = ["An importance", "A precision", "An observer", "A device", "A step of the planner"]
    assert five == EXAMPLES
