"""Requests to a child process, as JSON lines over two byte streams.

The parent writes one request a line, `{"command": name, "arguments": {...}}`. The child answers
each with one line, `{"ok": true, "result": {...}}`, or `{"ok": false, "status": "refused" or
"error", "kind": exception class, "message": text, "numbers": {...}}`. It ends when its requests
end.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, BinaryIO, Protocol, cast


def exit_text(code: int) -> str:
    """Say what the exit code of a process means.

    >>> from tfcompress.edge.system.child import exit_text
    >>> exit_text(-11), exit_text(3)
    ('was killed by SIGSEGV', 'ended with exit code 3')

    Args:
        code: The exit code as `subprocess` gives it: negative for a signal.

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
        status: `"refused"` (the file, the delegate or the inputs are to blame), `"error"` (it
            raised something unforeseen), `"crashed"` (it died) or `"timeout"` (it was killed).
        reason: What happened, for the person who asked.
        kind: Name of the exception that the child raised; empty if it raised none.
        ending: How a crashed process ended: "was killed by SIGSEGV"; empty for any other status.
        numbers: The `numbers` of the exception that the child raised; empty if it has none.
    """

    def __init__(
        self,
        status: str,
        reason: str,
        kind: str = "",
        ending: str = "",
        numbers: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{status}: {reason}")
        self.numbers = dict(numbers or {})
        self.status = status
        self.reason = reason
        self.kind = kind
        self.ending = ending


class Peer(Protocol):
    """The other end of two byte streams: a process here, or on a device.

    Attributes:
        requests: The stream that the peer reads.
        answers: The stream that the peer writes. It ends when the peer does.
    """

    requests: BinaryIO
    answers: BinaryIO

    def wait(self, timeout: float) -> int | None:
        """Wait for the end; return the exit code, or None after that many seconds without one."""

    def kill(self) -> None:
        """End the peer by force."""

    def log(self) -> str:
        """Return what the peer wrote to its console until now."""

    def close(self) -> None:
        """Release what the streams and the log hold, after the peer has ended."""


def environment(**changes: str) -> dict[str, str]:
    """Return the environment variables for a child process of this Python.

    An empty entry of PYTHONPATH means the current folder, whose files would be imported in place of
    installed packages. It is left out.

    Args:
        **changes: Variables to set.

    Returns:
        The variables of this process, and the changes.
    """
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = os.pathsep.join(entry for entry in entries if entry)
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**inherited, **({"PYTHONPATH": kept} if kept else {}), **changes}


class Process:
    """A process on this machine whose stdin and stdout are the two streams.

    >>> import sys
    >>> from tfcompress import edge
    >>> process = edge.Process([sys.executable, "-c", "print('ready')"])
    >>> process.requests.close()
    >>> process.answers.readline().strip(), process.wait(60)
    (b'ready', 0)
    >>> process.close()

    Args:
        command: The command line.
        environment: Its environment variables; None passes those of this process on. Defaults to
            None.
        folder: Folder for the log of its stderr; None takes the system's folder for temporary
            files. Defaults to None.

    Attributes:
        requests: Its stdin.
        answers: Its stdout.

    Raises:
        OSError: The command cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        environment: Mapping[str, str] | None = None,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        with contextlib.ExitStack() as stack:
            # A file takes any amount of output and needs no reader. In append mode, `log` cannot
            # move the place where the process writes.
            self._log = stack.enter_context(tempfile.TemporaryFile("a+b", dir=folder))
            self._popen = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment,
            )
            stack.pop_all()
        self.requests = cast(BinaryIO, self._popen.stdin)
        self.answers = cast(BinaryIO, self._popen.stdout)

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._popen.pid

    def wait(self, timeout: float) -> int | None:
        """Wait for the end; return the exit code, or None after that many seconds without one."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._popen.wait(timeout)
        return None

    def kill(self) -> None:
        """Kill the process and wait for its end."""
        self._popen.kill()
        self._popen.wait()

    def log(self) -> str:
        """Return what the process wrote to stderr until now."""
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace")

    def close(self) -> None:
        """Close the streams and the log."""
        self.answers.close()
        self._log.close()


class Child:
    """The parent's end: sends requests, waits for answers, and explains an end without one.

    Use it in a `with` block, which ends the peer.

    >>> import sys
    >>> from tfcompress.edge.system.child import Child, ChildFailure, Process
    >>> with Child(Process([sys.executable, "-c", "import os; os.abort()"])) as child:
    ...     try:
    ...         child.request("load", 60, path="model.tflite")
    ...     except ChildFailure as failure:
    ...         print(failure)
    crashed: the process was killed by SIGABRT during 'load'

    Args:
        peer: The other end.

    Attributes:
        peer: The other end.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        # A stream that breaks has ended.
        with contextlib.suppress(OSError, ValueError):
            for line in self.peer.answers:
                self._lines.put(line)
        self._lines.put(None)

    def request(self, command: str, timeout: float | None, /, **arguments: Any) -> dict[str, Any]:
        """Send one request and wait for its answer.

        Args:
            command: The name of the command.
            timeout: Seconds to wait, after which the peer is killed; None waits for ever.
            **arguments: The command's arguments, JSON values.

        Returns:
            The result.

        Raises:
            ChildFailure: The peer refused, failed, died or was too slow.
        """
        message = json.dumps({"command": command, "arguments": arguments}) + "\n"
        # A broken pipe means that the peer is dead, and the end of its answers says so.
        with contextlib.suppress(OSError):
            self.peer.requests.write(message.encode())
            self.peer.requests.flush()
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            self.peer.kill()
            raise ChildFailure(
                "timeout", f"no answer to {command!r} within {timeout:g} s; the process was killed"
            ) from None
        if line is None:
            self._lines.put(None)  # for the next request
            raise self._crash(command)
        try:
            answer = json.loads(line)
            if answer["ok"]:
                return dict(answer["result"])  # raises if it is no JSON object
            status, kind, message = answer["status"], answer["kind"], answer["message"]
            numbers = dict(answer.get("numbers", {}))
        except (ValueError, TypeError, KeyError):
            self.peer.kill()
            said = line[:200].decode("utf-8", "replace")
            raise ChildFailure("error", f"the process answered {said!r}") from None
        reason = message if status == "refused" else f"{kind}: {message}"
        raise ChildFailure(status, reason, kind, numbers=numbers)

    def _crash(self, command: str) -> ChildFailure:
        code = self.peer.wait(5.0)
        ending = "stopped answering" if code is None else exit_text(code)
        said = self.peer.log().strip().splitlines()
        last = f"; its last words: {said[-1].strip()[:300]}" if said else ""
        return ChildFailure(
            "crashed", f"the process {ending} during {command!r}{last}", ending=ending
        )

    def log(self) -> str:
        """Return what the peer wrote to its console until now."""
        return self.peer.log()

    def close(self) -> None:
        """End the peer, by force if it does not end by itself within two seconds."""
        with contextlib.suppress(OSError):
            self.peer.requests.close()
        code = None
        try:
            code = self.peer.wait(2.0)
        finally:
            if code is None:
                self.peer.kill()
        self._reader.join(2.0)
        if self._reader.is_alive():
            # A process that the peer started holds the stream open, and may do so for hours.
            threading.Thread(target=self._release, daemon=True).start()
        else:
            self._release()

    def _release(self) -> None:
        self._reader.join()
        self.peer.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
