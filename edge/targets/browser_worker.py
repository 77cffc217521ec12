"""The process that serves a file to a browser, which it starts, and compares the outputs.

Answers the command `measure`, in the protocol of `system.child`.
"""

import contextlib
import dataclasses
import http.server
import json
import os
import queue
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..engines.cpu import CpuEngine
from ..engines.parity import compare
from ..errors import DelegateMismatch, ModelFileError, ModelRefused
from ..inputs import random_inputs
from ..system import tflite
from ..system.scratch import scratch_folder
from ..system.serve import serve
from ..tensors import Array, TensorInfo

REFUSALS = (DelegateMismatch, ImportError, ModelFileError, ModelRefused, TypeError, ValueError)
PAGE = Path(__file__).with_name("browser_page.html")
KINDS = ("float32", "int32", "uint8")  # those of LiteRT.js 2.5
MEDIA = {".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm"}
SOFTWARE = ("swiftshader", "llvmpipe", "lavapipe")

SHARE = 1e-5
"""Of the largest output. LiteRT.js has XNNPACK's kernels, and gave the same bits where tried."""

FLAGS = (
    "--headless", "--no-first-run", "--no-default-browser-check", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-quic", "--enable-unsafe-webgpu", "--remote-debugging-pipe",
)  # fmt: skip

# A browser reads its orders from descriptor 3 and writes to 4.
START = (
    "import fcntl, os, sys; high = [fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3]];"
    "os.dup2(high[0], 3); os.dup2(high[1], 4); os.execv(sys.argv[3], sys.argv[3:])"
)


def main() -> None:
    """Answer requests until stdin ends."""
    serve(lambda command, arguments: {"measure": measure}[command](**arguments), REFUSALS)


def measure(
    path: str,
    accelerator: str,
    threads: int,
    runs: int,
    seconds: float,
    warmup: int,
    package: str,
    browser: Sequence[str],
) -> dict[str, Any]:
    """Run a file in a browser; return the fields of `browser.PageRun`."""
    file = tflite.check(path)
    cpu = CpuEngine(file)
    _check_types(path, cpu)
    arrays = random_inputs(cpu.inputs, 0)
    cpu.write(arrays)
    cpu.invoke()
    expected = {name: np.array(value) for name, value in cpu.read().items()}
    job = {
        "accelerator": accelerator, "threads": threads, "runs": runs, "seconds": seconds,
        "warmup": warmup, "inputs": [
            {"name": name, "dtype": str(array.dtype), "shape": array.shape}
            for name, array in arrays.items()
        ],
    }  # fmt: skip
    site = Site(file, Path(package), job, list(arrays.values()))
    with site.address() as address, _running(browser, address) as process:
        result = _wait(site, process, path)
    if "error" in result:
        raise ModelRefused(f"{path}: LiteRT.js cannot run it: {result['error']}")
    gpu = accelerator == "webgpu"
    received = _outputs(path, cpu, site, result["outputs"], expected)
    place = "WebGPU" if gpu else "WebAssembly"
    compare(file, cpu, cpu.arithmetic(), expected, received, None if gpu else SHARE, place)
    version = json.loads(Path(package, "package.json").read_text(encoding="utf-8"))["version"]
    return {
        "load_ms": result["load"],
        "ms": result["times"],
        "by": f"LiteRT.js {version} in {_browser(result['agent'])}, {result['gpu'] or place}",
        "difference": _difference(expected, received),
        "all": bool(result["all"]),
        "emulated": any(name in result["gpu"].lower() for name in SOFTWARE),
    }


def _check_types(path: str, cpu: CpuEngine) -> None:
    """Refuse a file of types or sizes that LiteRT.js does not take."""
    for side, infos in (("input", cpu.inputs), ("output", cpu.outputs)):
        for info in infos:
            if str(info.dtype) not in KINDS:
                raise ModelRefused(
                    f"{path}: LiteRT.js takes {', '.join(KINDS)}, and {side} {info.name!r} is "
                    f"{info.dtype}. Convert with float inputs and outputs, or io='uint8'"
                )
            if side == "input" and None in info.shape:
                raise ModelRefused(
                    f"{path}: LiteRT.js takes fixed sizes, and input {info.name!r} is "
                    f"{info.shape}. Convert with batch_size=1, or with input_shapes="
                )


def _outputs(
    path: str, cpu: CpuEngine, site: "Site", names: Sequence[str], expected: dict[str, Array]
) -> dict[str, Array]:
    if sorted(names) != sorted(expected):
        raise ModelRefused(f"{path}: LiteRT.js names its outputs {names}, not {list(expected)}")
    kinds: dict[str, TensorInfo] = {info.name: info for info in cpu.outputs}
    return {
        name: np.frombuffer(site.outputs[place], kinds[name].dtype).reshape(expected[name].shape)
        for place, name in enumerate(names)
    }


def _difference(expected: dict[str, Array], received: dict[str, Array]) -> float:
    """Return the largest difference of any output, as a share of its largest value."""
    worst = 0.0
    for name, wanted in expected.items():
        exact = wanted.astype(np.float64)
        off = np.abs(received[name] - exact).max(initial=0.0)
        worst = max(worst, float(off / (np.abs(exact).max(initial=0.0) or 1.0)))
    return worst


def _browser(agent: str) -> str:
    """Return name and version of the browser that a user agent tells."""
    found = re.search(r"(Edg|Chrome)/(\d+)", agent)
    return f"{ {'Edg': 'Edge', 'Chrome': 'Chromium'}[found[1]] } {found[2]}" if found else agent


class Site:
    """What the browser reads and writes, below a path that nobody else can guess."""

    def __init__(
        self, file: Path, package: Path, job: dict[str, Any], inputs: Sequence[Array]
    ) -> None:
        self.results: queue.Queue[dict[str, Any]] = queue.Queue()
        self.outputs: dict[int, bytes] = {}
        self._root = f"/{secrets.token_hex(16)}/"
        self._contents = {
            "job": lambda: json.dumps(job).encode(),
            "model": file.read_bytes,
            **{f"input/{place}": array.tobytes for place, array in enumerate(inputs)},
        }
        self._folders = {"core": package, "utils": package.parent / "wasm-utils"}

    @contextlib.contextmanager
    def address(self) -> Iterator[str]:
        """Serve it on 127.0.0.1, and yield its address."""
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self)) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                yield f"http://127.0.0.1:{server.server_port}{self._root}"
            finally:
                server.shutdown()

    def read(self, path: str) -> tuple[bytes, str] | None:
        """Return what lies at a path, and its media type; None if there is nothing."""
        if not path.startswith(self._root):
            return None
        place = path.removeprefix(self._root)
        if not place:
            return PAGE.read_bytes(), MEDIA[".html"]
        if (content := self._contents.get(place)) is not None:
            return content(), "application/octet-stream"
        name, _, inside = place.partition("/")
        folder = self._folders.get(name)
        if folder is None:
            return None
        file = Path(folder, inside).resolve()
        if not file.is_relative_to(folder.resolve()) or not file.is_file():
            return None
        return file.read_bytes(), MEDIA.get(file.suffix, "application/octet-stream")

    def write(self, path: str, content: bytes) -> None:
        """Take what the page sends."""
        place = path.removeprefix(self._root)
        if place == "result":
            self.results.put(json.loads(content))
        elif place.startswith("output/"):
            self.outputs[int(place.removeprefix("output/"))] = content


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, site: Site, *arguments: Any) -> None:
        self._site = site
        super().__init__(*arguments)

    def do_GET(self) -> None:
        found = self._site.read(self.path)
        if found is None:
            self.send_error(404)
        else:
            self._answer(*found)

    def do_POST(self) -> None:
        self._site.write(self.path, self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(b"", "text/plain")

    def _answer(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        # Such pages alone get threads, and a clock of 5 microseconds.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@dataclasses.dataclass(frozen=True)
class _Process:
    popen: subprocess.Popen[bytes]
    log: Path

    def last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][-300:] if lines else "nothing"


@contextlib.contextmanager
def _running(browser: Sequence[str], address: str) -> Iterator[_Process]:
    """Start a browser with a profile of its own; it ends with this process at the latest."""
    with scratch_folder() as folder, (folder / "log").open("wb") as log:
        flags = [*FLAGS, f"--user-data-dir={folder / 'profile'}"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")  # the sandbox does not work for root
        # It ends when nobody holds the other ends of its two pipes for remote control.
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        try:
            popen = subprocess.Popen(
                [sys.executable, "-S", "-c", START, str(theirs_in), str(theirs_out), browser[0],
                 *flags, *browser[1:], address],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=(theirs_in, theirs_out), start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        try:
            yield _Process(popen, folder / "log")
        finally:
            os.close(ours_out)
            os.close(ours_in)
            _end(popen)


def _end(popen: subprocess.Popen[bytes]) -> None:
    """Wait for the end of the browser and of all that it started, which write to its profile."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        popen.wait(5.0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(popen.pid, 9)
    popen.wait()


def _wait(site: Site, process: _Process, path: str) -> dict[str, Any]:
    while True:
        with contextlib.suppress(queue.Empty):
            return site.results.get(timeout=0.2)
        if (code := process.popen.poll()) is not None:
            raise ModelRefused(
                f"{path}: the browser ended with exit code {code}. It said: {process.last_words()}"
            )
