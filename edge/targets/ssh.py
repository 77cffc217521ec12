"""Another machine as a target, through the user's own OpenSSH."""

import base64
import contextlib
import json
import shlex
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..arguments import check_bool, check_each, check_seconds, check_text, refuse
from ..system.child import Child, ChildFailure, Process
from .base import Session

# A connection that says nothing for fifteen seconds is given up.
OPTIONS = (
    "-T", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=15",
    "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3",
)  # fmt: skip
REMOTE = Path(__file__).with_name("remote.py")
HINTS = {
    "Permission denied": "There is no dialogue here: it must take a key or an agent of yours, as "
    "ssh-copy-id arranges",
    "Host key verification failed": "Connect once by hand, to accept the machine's key",
}


@dataclass(frozen=True)
class Ssh:
    """Another machine, such as a Raspberry Pi, over SSH.

    It must have Python 3.11, NumPy and a LiteRT runtime, and is told what to install if not. The
    folder `tfcompress/edge` and the files of a session are sent to a temporary folder there, which
    is removed with the session, also if the connection or either process dies. The `ssh` command is
    the user's own, with its config, keys and agents; it asks for no password.

    >>> from tfcompress import edge
    >>> target = edge.Ssh("pi@raspberrypi", python="venv/bin/python")
    >>> target.name, target.emulated
    ('ssh:pi@raspberrypi', False)

    Args:
        host: What `ssh` takes: user@machine, or a name in ~/.ssh/config.
        python: The Python there: a command, or a path from the home folder. Defaults to
            `"python3"`.
        name: The name in results; empty takes "ssh:" and the host. Defaults to empty.
        emulated: Whether the machine is emulated, so that its latencies mean nothing. Defaults to
            False.
        options: More arguments for `ssh`, such as `("-p", "2222")`. Defaults to none.
        timeout: Seconds in which the machine must confirm that it has the files. Defaults to 120.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `host` or `python` is empty, or `host` would be an option of `ssh`.
    """

    host: str
    python: str = "python3"
    name: str = ""
    emulated: bool = False
    options: Sequence[str] = ()
    timeout: float = 120.0

    def __post_init__(self) -> None:
        check_text("host", self.host)
        if self.host.startswith("-") or len(self.host.split()) != 1:
            refuse("host", "user@machine, or a name in ~/.ssh/config", self.host)
        check_text("python", self.python)
        if not isinstance(self.name, str):
            refuse("name", "a text", self.name, TypeError)
        check_bool("emulated", self.emulated)
        check_each("options", self.options, str, "a text")
        check_seconds("timeout", self.timeout)
        object.__setattr__(self, "options", tuple(self.options))
        object.__setattr__(self, "name", self.name or f"ssh:{self.host}")

    @contextlib.contextmanager
    def session(self, files: Sequence[Path]) -> Iterator[Session]:
        """Send the worker and some files, start it, and remove all at the end.

        Args:
            files: Files on this machine, with different names.

        Yields:
            The session.

        Raises:
            ConnectionError: The machine cannot be reached, or lacks something; the reason says
                what.
            FileNotFoundError: There is no `ssh` command on this machine.
        """
        if shutil.which("ssh") is None:
            raise FileNotFoundError(
                "There is no ssh command here. Install OpenSSH's client, for example with: "
                "apt-get install openssh-client"
            )
        with Child(
            _Connection(["ssh", *OPTIONS, *self.options, self.host, self._command()])
        ) as child:
            _send(child, files)
            try:
                folder = child.request("receive", self.timeout)["folder"]
            except ChildFailure as failure:
                raise ConnectionError(self._explained(failure, child)) from failure
            yield Session(child, [f"{folder}/{file.name}" for file in files])

    def _command(self) -> str:
        """Return the command line that starts `remote.py`, in words that any shell takes."""
        program = base64.b64encode(zlib.compress(REMOTE.read_bytes(), 9)).decode()
        # Without the folder that it stands in, whose files would hide modules of their names.
        code = (
            "import sys;sys.path[:]=filter(None,sys.path);import base64,zlib;"
            f"exec(zlib.decompress(base64.b64decode('{program}')))"
        )
        return f"{shlex.quote(self.python)} -c {shlex.quote(code)}"

    def _explained(self, failure: ChildFailure, child: Child) -> str:
        if failure.status == "refused":
            return f"{self.host}: {failure.reason}"
        said = " ".join(child.log().split())
        code = child.peer.wait(5.0)
        if code == 255:
            hints = [hint for words, hint in HINTS.items() if words in said]
            return ". ".join(
                [f"{self.host} cannot be reached: {said.rstrip('.') or 'ssh failed'}", *hints]
            )
        if code in (126, 127):
            return f"{self.host} has no {self.python!r}; give its Python with python=. {said}"
        return f"{self.host}: {failure.reason}"


class _Connection(Process):
    """The process of `ssh`, whose exit code is that of the program there."""

    def wait(self, timeout: float) -> int | None:
        """Wait for the end; return the exit code, negative for a signal that ended the worker."""
        code = super().wait(timeout)
        return 128 - code if code is not None and 128 < code < 192 else code


def _send(child: Child, files: Sequence[Path]) -> None:
    """Write the folder `edge` and the files to the stream of requests."""
    edge = Path(__file__).resolve().parents[1]
    parts = {
        f"edge/{file.relative_to(edge).as_posix()}": file
        for file in sorted(edge.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }
    parts.update({file.name: file for file in files})
    contents = {name: file.read_bytes() for name, file in parts.items()}
    head = json.dumps([[name, len(content)] for name, content in contents.items()]) + "\n"
    # A broken pipe means that the peer is dead, and the answer to the next request says so.
    with contextlib.suppress(BrokenPipeError, ConnectionError):
        child.peer.requests.write(b"".join([head.encode(), *contents.values()]))
        child.peer.requests.flush()
