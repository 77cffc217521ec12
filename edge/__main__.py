"""A worker: `python <this folder> [NAME]` answers requests on stdin; see `targets/NAME.py`.

NAME is `worker` unless it is given.

The folder is loaded as a package of its own, under another name, so that neither tfcompress nor
TensorFlow is imported, and so that it works on a device that has only this folder.
"""

import importlib
import importlib.util
import sys
from pathlib import Path


def _load() -> None:
    folder = Path(__file__).resolve().parent
    # Python put the folder itself on the path, where its modules would hide others of their names.
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != folder]
    name = "_tfcompress_edge"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} does not hold tfcompress.edge")
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
    worker = sys.argv[1] if len(sys.argv) > 1 else "worker"
    importlib.import_module(f"{name}.targets.{worker}").main()


if __name__ == "__main__":
    _load()
