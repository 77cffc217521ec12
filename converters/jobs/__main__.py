"""Child process: answers requests to run a job, in the protocol of `tfcompress.edge.system.child`.

The folder above is made a package under a private name, so that neither `tfcompress` nor Keras is
imported for a job that needs neither. A command is the name of a job's module below that folder:
`jobs.lower`. What a job prints goes to stderr, so that it cannot disturb the answers.
"""

import importlib
import json
import os
import sys
import traceback
import types
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer requests until stdin ends."""
    # TensorFlow imports Keras for optimizers that no job has a use for: half of the start-up.
    sys.modules["keras"] = None  # type: ignore[assignment]
    package = types.ModuleType("_converters")
    package.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules[package.__name__] = package
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            request = json.loads(line)
            answer: dict[str, Any]
            try:
                module = importlib.import_module(f"{package.__name__}.{request['command']}")
                answer = {"ok": True, "result": module.job(request["arguments"])}
            except Exception as error:
                traceback.print_exc()
                kind, message = type(error).__name__, str(error)
                answer = {"ok": False, "status": "error", "kind": kind, "message": message}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
