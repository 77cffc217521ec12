"""The programs of docs/guides, run as far as they can be without the device."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.helpers import need

ROOT = Path(__file__).parents[1]
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
