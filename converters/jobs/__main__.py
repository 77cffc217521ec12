"""Child process: answers requests to run a job, in the protocol of `tfcompress.edge.system.child`.

Two folders are made packages under private names, so that neither `tfcompress` nor Keras is
imported for a job that needs neither. A command is the name of a job's module below `converters`:
`jobs.lower`. What a job prints goes to stderr, so that it cannot disturb the answers.
"""

import importlib
import sys
import types
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer requests until stdin ends."""
    # TensorFlow imports Keras for optimizers that no job uses: half of the start-up.
    sys.modules["keras"] = None  # type: ignore[assignment]
    converters = Path(__file__).resolve().parents[1]
    _package("_converters", converters)
    _package("_edge_system", converters.parent / "edge" / "system")
    importlib.import_module("_edge_system.serve").serve(_run)


def _package(name: str, folder: Path) -> None:
    """Make the modules of a folder importable, without running its `__init__`."""
    package = types.ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package


def _run(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    reply: dict[str, Any] = importlib.import_module(f"_converters.{command}").job(arguments)
    return reply


if __name__ == "__main__":
    main()
