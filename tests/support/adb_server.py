"""A server of the adb protocol on 127.0.0.1, with phones that are folders of this machine.

The `adb` client is a real one. It sends a request as four hexadecimal digits, the length, and a
text; the server says OKAY or FAIL. See packages/modules/adb in the Android Open Source Project:
OVERVIEW.TXT, SERVICES.TXT, SYNC.TXT, and shell_protocol.h for the packets of a shell.
"""

import contextlib
import os
import shutil
import socketserver
import struct
import subprocess
import threading
from pathlib import Path

from tests.support.helpers import need

TEMPORARY = "/data/local/tmp"
PROPERTIES = """#!/bin/sh
case $1 in
    *manufacturer) echo Google;; *model) echo 'Pixel 7';; *release) echo 14;; *) echo arm64-v8a;;
esac
"""


def need_adb():
    need(shutil.which("adb"), "no adb; install with: apt-get install adb")


class Phones(socketserver.ThreadingTCPServer):
    """A running server; `states` are the phones that it lists, `tmp` the folder of each for files.

    Attributes:
        states: State of each phone by serial number; "device" is ready.
        tmp: The folder that stands for /data/local/tmp.
        full: Whether the disk of the phone is full.
        cut: Part of a shell command at which the connection breaks; empty for none.
        seen: The shell commands of all connections.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Connection)
        self.states = {"PIXEL7": "device"}
        self.tmp = folder / "tmp"
        self.tmp.mkdir()
        self.bin = folder / "bin"
        self.bin.mkdir()
        (self.bin / "getprop").write_text(PROPERTIES)
        (self.bin / "getprop").chmod(0o755)
        self.full = False
        self.cut = ""
        self.seen = []
        self.options = ("-P", str(self.server_address[1]))

    def there(self, text):
        return text.replace(TEMPORARY, str(self.tmp))


class Connection(socketserver.StreamRequestHandler):
    def handle(self):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.open = True
            while self.open and (size := self.rfile.read(4)):
                self.answer(self.rfile.read(int(size, 16)).decode())

    def okay(self, text=None):
        said = b"" if text is None else b"%04x%s" % (len(text), text.encode())
        self.wfile.write(b"OKAY" + said)
        # Only a request for a phone is followed by another one.
        self.open = text is None

    def answer(self, asked):
        if asked == "host:version":
            self.okay("0029")  # that of the client, which would replace another server
        elif asked == "host:devices":
            self.okay("".join(f"{s}\t{state}\n" for s, state in self.server.states.items()))
        elif asked.endswith("features"):
            self.okay("shell_v2,cmd")
        elif asked.startswith("host:tport:"):
            self.okay()
            self.wfile.write(struct.pack("<Q", 1))
        elif asked.startswith("host:transport:"):
            self.okay()
        elif asked.startswith("sync:"):
            self.okay()
            self.open = False
            self.sync()
        elif asked.startswith("shell,v2"):
            self.okay()
            self.open = False
            self.shell(asked.partition(":")[2])
        else:
            said = f"unknown request {asked}".encode()
            self.wfile.write(b"FAIL%04x%s" % (len(said), said))

    def packet(self, kind, content):
        self.wfile.write(struct.pack("<BI", kind, len(content)) + content)

    def shell(self, command):
        self.server.seen.append(command)
        if self.server.cut and self.server.cut in command:
            return
        path = f"{self.server.bin}{os.pathsep}{os.environ['PATH']}"
        with subprocess.Popen(
            ["sh", "-c", self.server.there(command)], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "PATH": path},
        ) as process:  # fmt: skip
            for line in process.stdout:
                self.packet(1, line)
        self.packet(3, bytes([process.returncode % 256]))

    def sync(self):
        while kind := self.rfile.read(4):
            size = struct.unpack("<I", self.rfile.read(4))[0]
            if kind == b"QUIT":
                return
            name = self.server.there(self.rfile.read(size).decode())
            if kind == b"STAT":
                found = Path(name).stat() if Path(name).exists() else None
                numbers = (found.st_mode, found.st_size, 0) if found else (0, 0, 0)
                self.wfile.write(b"STAT" + struct.pack("<3I", *numbers))
            elif kind == b"SEND":
                self.receive(name.rpartition(",")[0])

    def receive(self, name):
        content = b""
        while self.rfile.read(4) == b"DATA":
            content += self.rfile.read(struct.unpack("<I", self.rfile.read(4))[0])
        self.rfile.read(4)  # the time, after DONE
        if self.server.full:
            Path(name).write_bytes(content[:10])
            said = b"write failed: No space left on device"
            self.wfile.write(b"FAIL" + struct.pack("<I", len(said)) + said)
        else:
            Path(name).write_bytes(content)
            self.wfile.write(b"OKAY" + struct.pack("<I", 0))


@contextlib.contextmanager
def adb_server(folder):
    """Start a server whose phones keep their files in a folder; end it."""
    need_adb()
    with Phones(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
