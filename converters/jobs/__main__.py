"""Child process: answers requests to run a job, in the protocol of `tfcompress.edge.system.child`.

Two folders are made packages under private names, so that neither `tfcompress` nor Keras is
imported for a job that needs neither. A command is the name of a job's module below `converters`:
`jobs.lower`. What a job prints goes to stderr, so that it cannot disturb the answers.
"""

import ctypes
import importlib
import signal
import sys
import types
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer requests until stdin ends."""
    _die_with_parent()
    # TensorFlow imports Keras for optimizers that no job uses: half of the start-up.
    sys.modules["keras"] = None  # type: ignore[assignment]
    converters = Path(__file__).resolve().parents[1]
    _package("_converters", converters)
    _package("_edge_system", converters.parent / "edge" / "system")
    importlib.import_module("_edge_system.serve").serve(_run)


def _die_with_parent() -> None:
    """Let Linux kill this process when the thread that started it ends, which waits for the answer.

    The converter holds Python's lock for minutes, in which no thread of ours could notice.
    """
    if sys.platform == "linux":
        set_signal_at_parents_death = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_signal_at_parents_death, signal.SIGKILL)


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
