"""Files on TensorFlow Lite Micro: how small their arena is, and whether it computes rightly."""

import importlib.util
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests.support.helpers import need
from tfcompress import converters, edge
from tfcompress.edge.system.child import ChildFailure
from tfcompress.edge.system.tflite import PROBE
from tfcompress.edge.targets import micro_worker
from tfcompress.edge.targets.answers import parse
from tfcompress.edge.targets.microcontroller import Run

LOADS = """
import sys
from tflite_micro.python.tflite_micro import runtime
runtime.Interpreter.from_file(sys.argv[1], arena_size=int(sys.argv[2]))
"""


@pytest.fixture(scope="module", autouse=True)
def tflite_micro():
    need(
        importlib.util.find_spec("tflite_micro"),
        "no tflite-micro, which has wheels for Linux on x86-64 only; "
        "install with: pip install 'tfcompress[mcu]'",
    )


def loads(file, arena):
    command = [sys.executable, "-c", LOADS, str(file), str(arena)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "parity"),
    [("float32", "e+00"), ("int8", "0 LSB"), ("int8_float", "0 LSB"), ("int16", "1 LSB")],
)
def test_estimate_finds_the_smallest_arena_and_compares_outputs(files, name, parity):
    found = edge.Microcontroller().estimate(files[name])
    arena = found.metrics["arena bytes"]
    assert loads(files[name], arena) and not loads(files[name], arena - 16)
    assert found.metrics["parity"].endswith(parity)
    assert {"CONV_2D", "FULLY_CONNECTED", "RESHAPE"} <= set(found.ops)
    assert found.placement.ops_total == found.placement.ops_delegated
    assert found.by.startswith("TensorFlow Lite Micro 0.") and found.ms is None


def test_estimate_of_the_smallest_file():
    found = edge.Microcontroller().estimate(PROBE)
    assert (found.metrics["parity"], found.ops) == ("0.0e+00", ("ADD",))
    assert loads(PROBE, found.metrics["arena bytes"])


@pytest.fixture(scope="module")
def int4(tmp_path_factory):
    layers = [keras.layers.Dense(64, "relu"), keras.layers.Dense(64), keras.layers.Dense(4)]
    model = keras.Sequential([keras.Input((64,), name="x"), *layers])
    samples = np.random.default_rng(0).normal(size=(16, 64)).astype("float32")
    path = tmp_path_factory.mktemp("int4") / "int4.tflite"
    converters.convert(model, path, converters.Int4Weights(samples), batch_size=1)
    return path


def test_refuses_what_the_runtime_lacks_with_the_name_of_the_op(files, int4):
    paths = [files["dynamic"], files["float16"], int4, files["words"], files["int8"]]
    *refused, fine = edge.benchmark(paths, target=edge.Microcontroller())
    assert fine.ok and fine.target == "mcu" and fine.median_ms is None
    said = [result.reason for result in refused]
    assert [result.status for result in refused] == ["refused"] * 4, said
    assert "cannot run FULLY_CONNECTED (op " in said[0]
    assert "cannot run DEQUANTIZE (op 0)" in said[1]
    assert "cannot run FULLY_CONNECTED (op " in said[2]
    assert "TensorFlow Lite Micro (estimated) on mcu" in str(edge.Report(fine))


def test_a_file_with_an_unknown_op_is_refused_by_its_name(tmp_path):
    model = keras.Sequential([keras.Input((4, 4, 4, 1), name="x"), keras.layers.Conv3D(2, 3)])
    converters.convert(model, tmp_path / "m.tflite", batch_size=1)
    with pytest.raises(edge.ModelRefused, match="cannot run CONV_3D: it has no such op"):
        edge.Microcontroller().estimate(tmp_path / "m.tflite")


def test_outputs_that_differ_are_refused_with_their_numbers():
    with pytest.raises(edge.DelegateMismatch, match="'y' is off by 3 steps") as caught:
        micro_worker._check("m.tflite", "y", 3.0, "steps")
    assert caught.value.numbers["error"] == 3.0
    with pytest.raises(edge.DelegateMismatch, match=r"0\.01 of its largest value"):
        micro_worker._check("m.tflite", "y", 0.01, "share")
    micro_worker._check("m.tflite", "y", 1.0, "steps")


def test_says_what_to_install_and_what_a_crash_was(files, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "tflite_micro.py").write_text("raise ModuleNotFoundError(name='tflite_micro')")
    result = edge.benchmark(files["int8"], target=edge.Microcontroller())
    assert result.status == "refused" and "pip install 'tfcompress[mcu]'" in result.reason
    (tmp_path / "tflite_micro.py").write_text("import os; os.abort()")
    result = edge.benchmark(files["int8"], target=edge.Microcontroller())
    assert result.status == "crashed" and "SIGABRT" in result.reason


def test_answers_of_another_version_are_refused():
    with pytest.raises(ChildFailure, match="does not fit"):
        parse(Run, "estimate", {"arena": "large", "ops": [], "parity": "", "version": "1"})
