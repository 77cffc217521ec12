"""The parent's end of a child process that runs `worker`.

One JSON object a line each way: requests on the child's stdin, answers on its stdout, which the
child moves out of the way of the runtime's log as it starts. An answer is `{"ok": true, ...}`, or
`{"ok": false, "kind": class, "message": text}`.
"""

import contextlib
import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

# What the child raises on purpose: the file, the delegate or the inputs are to blame.
_REFUSALS = {
    "ModelFileError", "ModelRefused", "DelegateUnavailable", "DelegateMismatch",
    "ImportError", "ModuleNotFoundError", "ValueError", "TypeError",
}  # fmt: skip


def ending(code: int) -> str:
    """What the exit code of a process says about its end.

    >>> from tfcompress.edge.targets.local import ending
    >>> ending(-11), ending(3)
    ('was killed by SIGSEGV', 'ended with exit code 3')

    Args:
        code: As `subprocess` gives it: negative for a signal.

    Returns:
        Words that follow "the process".
    """
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"


class ChildFailure(Exception):
    """A child did not do what it was asked.

    Attributes:
        status: `"refused"` (it says why not), `"error"` (it raised something unforeseen),
            `"crashed"` (it died) or `"timeout"` (it was killed).
        reason: What happened, for the person who asked.
        kind: The name of the exception that the child raised, if it raised one.
    """

    def __init__(self, status: str, reason: str, kind: str = "") -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason
        self.kind = kind


class Child:
    """A running child process; use it in a `with` block, which ends it.

    Args:
        command: The command line; None runs this package's worker under this Python.
    """

    def __init__(self, command: Sequence[str] | None = None) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, closed by `close`
        self._process = subprocess.Popen(
            list(command or (sys.executable, str(Path(__file__).resolve().parents[1]))),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
        )
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def _read(self) -> None:
        if self._process.stdout is not None:
            for line in self._process.stdout:
                self._answers.put(line)
        self._answers.put(None)

    def request(self, command: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        """Sends one request and waits for its answer.

        Args:
            command: A command of `worker`.
            timeout: Seconds to wait; then the child is killed.
            **arguments: The command's arguments, as JSON takes them.

        Returns:
            The answer.

        Raises:
            ChildFailure: The child refused, failed, died or was too slow.
        """
        if self._process.stdin is not None:
            # A broken pipe means that it is dead, and the reader says so.
            with contextlib.suppress(OSError):
                self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
                self._process.stdin.flush()
        try:
            line = self._answers.get(timeout=timeout)
        except queue.Empty:
            self._process.kill()
            raise ChildFailure(
                "timeout", f"no answer to {command!r} within {timeout:g} s; the process was killed"
            ) from None
        if line is None:
            raise ChildFailure("crashed", self._autopsy(command))
        try:
            answer: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            self._process.kill()
            raise ChildFailure("error", f"the process answered {line[:200]!r}") from None
        if not answer["ok"]:
            status = "refused" if answer["kind"] in _REFUSALS else "error"
            prefix = "" if status == "refused" else f"{answer['kind']}: "
            raise ChildFailure(status, prefix + answer["message"], answer["kind"])
        return answer

    def _autopsy(self, command: str) -> str:
        how = ending(self._process.wait())
        self._log.seek(0)
        said = self._log.read().decode("utf-8", "replace").strip().splitlines()
        last = f"; its last words: {said[-1].strip()[:300]}" if said else ""
        return f"the process {how} during {command!r}{last}"

    def close(self) -> None:
        """Ends the child, by force if it does not end by itself at once."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
