"""The programs of docs/guides, run as far as they can be without the device."""

import os
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.helpers import need

ROOT = Path(__file__).parents[1]
LITERTJS = Path(os.environ.get("TFCOMPRESS_LITERTJS", ROOT / ".web/node_modules/@litertjs/core"))
PI = Path(os.environ.get("TFCOMPRESS_PI", ROOT / ".pi/python"))


@pytest.mark.slow("starts TensorFlow, and an emulated aarch64 Python")
def test_raspberry_pi(tmp_path):
    page = (ROOT / "docs/guides/raspberry_pi.md").read_text()
    desk, predict = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    (tmp_path / "desk.py").write_text(desk)
    (tmp_path / "predict.py").write_text(predict)
    subprocess.run([sys.executable, "desk.py"], cwd=tmp_path, check=True, timeout=120)
    shutil.copytree(ROOT / "edge", tmp_path / "edge")
    assert classified(sys.executable, tmp_path)
    need(PI.exists(), "no aarch64 runtime; make one with: tests/emulated_pi.sh .pi (Debian)")
    assert classified(PI, tmp_path)


def classified(python, folder):
    said = subprocess.check_output([python, "predict.py"], cwd=folder, text=True, timeout=120)
    return re.fullmatch(r"class \d\n", said)


@pytest.mark.slow("starts TensorFlow, and a browser")
def test_web_page(tmp_path):
    page = (ROOT / "docs/guides/web_page.md").read_text()
    [desk] = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    [html] = re.findall(r"^```html\n(.*?)^```", page, re.M | re.S)
    (tmp_path / "desk.py").write_text(desk)
    (tmp_path / "index.html").write_text(html)
    subprocess.run([sys.executable, "desk.py"], cwd=tmp_path, check=True, timeout=120)
    need(
        LITERTJS.is_dir(), "no LiteRT.js: npm install --no-save --prefix .web @litertjs/core@2.5.3"
    )
    need(shutil.which("chromium"), "no Chromium; install with: apt-get install chromium")
    (tmp_path / "node_modules").symlink_to(LITERTJS.parents[1])
    serve = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        dom = subprocess.check_output(
            ["chromium", "--headless", "--no-sandbox", "--virtual-time-budget=60000", "--dump-dom",
             f"--user-data-dir={tmp_path / 'profile'}", f"http://127.0.0.1:{server.server_port}/"],
            text=True, stderr=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
        server.shutdown()
    # WebAssembly has XNNPACK's kernels.
    assert re.search(r'<p id="result">class \d, off by 0</p>', dom), dom
