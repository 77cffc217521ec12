"""PostgreSQL's own server on 127.0.0.1, with an empty database."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from tests.support.helpers import need

PASSWORD = "not a secret"


@contextlib.contextmanager
def postgres_server():
    """Start a server, give the URL of its database, and end it and remove its files."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    need(found, "no PostgreSQL server; install with: apt-get install postgresql")
    need(find_spec("psycopg"), "no driver; install with: pip install 'psycopg[binary]'")
    # It refuses to run as root; the Debian package made a user for it.
    other = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
    folder = Path(tempfile.mkdtemp("-postgres"))
    try:
        if other:
            shutil.chown(folder, "postgres", "postgres")
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        subprocess.run(
            [found[-1] / "initdb", "-D", folder / "data", "-U", "tester", "-E", "UTF8",
             "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync"],
            check=True, capture_output=True, cwd=folder, **other,
        )  # fmt: skip
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [found[-1] / "postgres", "-D", folder / "data", "-p", str(port), "-k", folder,
                 "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"],
                stdout=log, stderr=log, cwd=folder, **other,
            )  # fmt: skip
        try:
            _wait(process, port, folder / "log")
            yield f"postgresql://tester:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGINT)  # ends its connections, too
            process.wait(60)
    finally:
        shutil.rmtree(folder)


def _wait(process, port, log):
    import psycopg

    for _ in range(400):
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(
                host="127.0.0.1", port=port, user="tester", password=PASSWORD, dbname="postgres"
            ).close()
            return
        time.sleep(0.05)
    raise AssertionError(log.read_text())
