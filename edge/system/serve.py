"""The child's end of the protocol of `child.py`: read requests, write answers.

Imports the standard library only, so that a process can load this file without the package.
"""

import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any


def serve(
    answer: Callable[[str, dict[str, Any]], dict[str, Any]],
    refusals: tuple[type[Exception], ...] = (),
) -> None:
    """Answer requests until stdin ends; end at once if the parent process dies.

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
        for line in _lines():
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
                }
            answers.write(json.dumps(reply) + "\n")
            answers.flush()


def _lines() -> Iterator[bytes]:
    """Yield the lines of stdin, which a thread reads: it sees the end while a request is answered."""
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines, os.getppid()), daemon=True).start()
    while (line := lines.get()) is not None:
        yield line


def _read(lines: "queue.SimpleQueue[bytes | None]", parent: int) -> None:
    parts: list[bytes] = []
    # Not sys.stdin, whose lock a thread that waits would hold at the end of the interpreter.
    while chunk := os.read(0, 1 << 16):
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            lines.put(b"".join([*parts, end]))
            parts.clear()
        parts.append(rest)
    lines.put(None)
    # A parent that lives may have closed stdin and still wait for answers. One that was killed
    # leaves its children to another process, a moment after its files are closed.
    while os.getppid() == parent:
        time.sleep(0.1)
    os._exit(1)
