"""The child's end of the protocol of `child.py`: read requests, write answers.

Imports the standard library only, so that a process can load this file without the package.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any


def serve(
    answer: Callable[[str, dict[str, Any]], dict[str, Any]],
    refusals: tuple[type[Exception], ...] = (),
) -> None:
    """Answer requests until stdin ends.

    File descriptor 1 leads to stderr afterwards: a runtime that prints cannot disturb the answers.

    Args:
        answer: Takes the name of a command and its arguments, and returns the result, JSON values
            by name.
        refusals: Exceptions for which the request is to blame. They are answered with the status
            "refused", any other exception with "error" and a traceback on stderr. Defaults to
            none.
    """
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            request = json.loads(line)
            reply: dict[str, Any]
            try:
                reply = {"ok": True, "result": answer(request["command"], request["arguments"])}
            except Exception as error:
                refused = isinstance(error, refusals)
                if not refused:
                    traceback.print_exc()
                reply = {
                    "ok": False,
                    "status": "refused" if refused else "error",
                    "kind": type(error).__name__,
                    "message": str(error),
                    "numbers": getattr(error, "numbers", {}),
                }
            answers.write(json.dumps(reply) + "\n")
            answers.flush()
