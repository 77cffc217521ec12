"""OpenSSH's own server on 127.0.0.1, with a key made for it."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from tests.support.helpers import need

CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
PidFile none
AuthorizedKeysFile {folder}/user.pub
PasswordAuthentication no
UsePAM no
StrictModes no
SetEnv TMPDIR={folder}/tmp
"""


class Server:
    """A running server; `options` are those for `ssh`, `tmp` the folder for temporary files."""

    def __init__(self, folder, port, process):
        self.folder = folder
        self.tmp = folder / "tmp"
        self.host = f"{getpass.getuser()}@127.0.0.1"
        self.process = process
        self.options = (
            "-F", "none", "-p", str(port), "-i", str(folder / "user"), "-o", "IdentitiesOnly=yes",
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
        )  # fmt: skip

    def processes(self):
        """What the server's connections started and that still runs, as {process id: parent's}."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"TMPDIR={self.tmp}\0".encode() in (entry / "environ").read_bytes():
                    # "12 (name) S 11 ...", and a name may hold brackets and spaces.
                    parent = (entry / "stat").read_text().rpartition(") ")[2].split()[1]
                    found[int(entry.name)] = int(parent)
        return found


def _key(path):
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True)


@contextlib.contextmanager
def ssh_server(folder):
    """Start a server whose files lie in a folder; end it, and what it started."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    need(sshd, "no SSH server; install with: apt-get install openssh-server")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it wants to be locked up
    (folder / "tmp").mkdir()
    _key(folder / "host")
    _key(folder / "user")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "config").write_text(CONFIG.format(port=port, folder=folder))
    log = (folder / "log").open("wb")
    process = subprocess.Popen([sshd, "-D", "-e", "-f", str(folder / "config")], stderr=log)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        yield Server(folder, port, process)
    finally:
        process.terminate()
        process.wait()
        log.close()
