"""Run the notebooks, and store what they print and draw.

    python docs/scripts/notebooks.py               # all of them, some 15 minutes
    python docs/scripts/notebooks.py 04 05

What goes to stderr is not stored, nor when a cell ran and how often.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from rich.progress import track

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def renew(path: Path) -> None:
    """Run a notebook in a folder of its own, and write it with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=resources).execute()
    for number, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
        cell.metadata.pop("execution", None)
        cell.execution_count = number
        cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
        for out in cell.outputs:
            if "execution_count" in out:
                out.execution_count = number
    # The kernel's version would change with each Python.
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)


def main() -> None:
    """Run those that were named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("numbers", nargs="*", metavar="NN", help="default: all")
    numbers = parser.parse_args().numbers
    paths = [p for p in sorted(NOTEBOOKS.glob("*.ipynb")) if not numbers or p.name[:2] in numbers]
    for path in track(paths, "Notebooks"):
        renew(path)


if __name__ == "__main__":
    main()
