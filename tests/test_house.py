"""The house keeps its shape: imports go down, without circles, between files of a readable size."""

import configparser
import graphlib
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    file
    for folder in ("tfcompress", "converters", "edge")
    for file in sorted((ROOT / folder).rglob("*.py"))
    # Two links lead from tfcompress to the other folders.
    if not {"converters", "edge"} & set(file.relative_to(ROOT).parts[1:2])
]


@pytest.fixture(scope="module")
def contracts() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    return config


def lint_imports(folder: Path) -> "subprocess.CompletedProcess[str]":
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [str(program), "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("file", "statement", "broken"),
    [
        ("pruning/masks.py", "from tfcompress.channels import prune", "tfcompress.channels"),
        ("model/layers.py", "from tfcompress.cost import macs", "tfcompress.cost"),
        ("converters/errors.py", "from tfcompress.pruning import masks", "tfcompress.pruning"),
        ("converters/file/model.py", "import keras", "tfcompress.converters.xnnpack"),
        ("edge/errors.py", "import rich", "rich"),
        ("newcomer.py", "import keras", "tfcompress.newcomer"),
    ],
    ids=[
        "method to method",
        "model to cost",
        "converters to pruning",
        "file to keras",
        "edge to rich",
        "no layer",
    ],
)
def test_an_import_that_breaks_the_rule_fails_the_linter(file, statement, broken, tmp_path):
    shutil.copytree(
        ROOT / "tfcompress", tmp_path / "tfcompress", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    with (tmp_path / "tfcompress" / file).open("a", encoding="utf-8") as stream:
        stream.write(f"\n{statement}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert broken in done.stdout


def test_the_house_has_at_most_eight_floors_and_no_method_imports_another(contracts):
    rule = contracts["importlinter:contract:layers"]
    floors = rule["layers"].split("\n")[1:]
    assert len(floors) <= 8
    assert rule["exhaustive"] == "True"
    # `:` instead of `|` would let neighbours import each other.
    assert not any(":" in floor for floor in floors)


def test_no_file_imports_itself_through_others():
    graph = grimp.build_graph("tfcompress", exclude_type_checking_imports=False)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}", pytrace=False)


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_has_at_most_350_lines(file):
    assert len(file.read_text("utf-8").splitlines()) <= 350
