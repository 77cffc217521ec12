"""A device added in one file, and used through the command line."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.examples import example
from tfcompress.edge.system.tflite import PROBE


@pytest.fixture
def device(tmp_path):
    (tmp_path / "my_device.py").write_text(example("my_device.py"))
    return tmp_path


def bench(folder, *options):
    return subprocess.run(
        [sys.executable, "-c", "from tfcompress.cli import main; main()", "bench",
         "--runs", "4", "--seconds", "0", *options],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip


def test_target_in_one_file_is_used_by_its_name(device):
    done = bench(
        device, PROBE, "--import", "my_device", "--target", "other-folder",
        "--report", "report.json", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [result] = json.loads(done.stdout)["results"]
    assert (result["status"], result["target"], result["emulated"]) == ("ok", "other-folder", False)
    assert result["path"] == str(PROBE)
    assert result["runs"] >= 4 and result["placement"]["ops_delegated"] == 1
    assert json.loads((device / "report.json").read_text())["results"] == [result]


def test_target_runs_with_the_copied_folder_and_files_alone(device):
    code = """
import sys
import numpy as np
from pathlib import Path
import my_device
from tfcompress import edge

with my_device.OtherFolder().session([Path(sys.argv[1])]) as (child, [path]):
    child.request("probe", 60, delegate="xnnpack")
    modules = child.request("modules", 60)["modules"]
    assert not {"tfcompress", "keras", "tensorflow"} & set(modules), modules
    assert Path(path) != Path(sys.argv[1]) and Path(path).exists()
assert not Path(path).exists()
inputs = np.ones((3, 4), "float32")
found = edge.benchmark(sys.argv[1], inputs=inputs, min_seconds=0, target=my_device.OtherFolder())
print(found.status, found.input_shapes)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, PROBE], cwd=device, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ok {'x': [3, 4]}\n"


def test_unknown_target_is_bad_usage_and_names_those_that_there_are(device):
    done = bench(device, PROBE, "--target", "other-folder")
    assert done.returncode == 2
    assert "must be one of " in done.stderr and "ssh:USER@HOST" in done.stderr
    assert "Received: target='other-folder'" in done.stderr
