"""Child process: `python __main__.py JOB REQUEST`, which writes its reply beside the request.

The folder is made a package under a private name, so that neither `tfcompress` nor Keras is
imported for a job that needs neither. A job is named as it lies below that folder: `jobs.lower`.
"""

import importlib
import json
import sys
import types
from pathlib import Path


def main() -> None:
    """Run the job named on the command line."""
    job, request = sys.argv[1], Path(sys.argv[2])
    # TensorFlow imports Keras for optimizers that no job has a use for: half of the start-up.
    sys.modules["keras"] = None  # type: ignore[assignment]
    package = types.ModuleType("_converters")
    package.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules[package.__name__] = package
    module = importlib.import_module(f"{package.__name__}.{job}")
    reply = module.job(json.loads(request.read_text("utf-8")))
    request.with_name("reply.json").write_text(json.dumps(reply), "utf-8")


if __name__ == "__main__":
    main()
