"""Single modules of TensorFlow, without the rest of it. In child processes.

To import `tensorflow` takes seconds; its converter and its quantizer lie in shared libraries that
load in a third of one.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from typing import Any

_MISSING = "Quantizing a file needs TensorFlow: pip install 'tfcompress[tensorflow]'"


def part(name: str) -> Any:
    """Import a module of TensorFlow, and of TensorFlow only what this module imports.

    It keeps its name, so that whoever imports `tensorflow` later gets this module and no second
    one: two copies of a library crash the process when it ends.

    Args:
        name: The whole name, such as "tensorflow.lite.python.schema_py_generated".

    Returns:
        The module.

    Raises:
        ImportError: TensorFlow is not installed, or has no such module.
    """
    found = importlib.util.find_spec("tensorflow")
    if found is None or not found.submodule_search_locations:
        raise ImportError(_MISSING)
    if "tensorflow" in sys.modules:
        return importlib.import_module(name)
    package = types.ModuleType("tensorflow")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["tensorflow"] = package
    try:
        return importlib.import_module(name)
    finally:
        _forget_packages()


def _forget_packages() -> None:
    """Let the next import of `tensorflow` run its `__init__`, and keep its single modules."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "tensorflow" and hasattr(module, "__path__"):
            del sys.modules[name]
