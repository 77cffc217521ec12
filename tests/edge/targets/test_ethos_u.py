"""Files on an Ethos-U NPU, as Vela estimates it."""

import importlib.util
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests.support.helpers import need
from tfcompress import converters, edge

MODEL = [keras.layers.Conv2D(8, 3), keras.layers.Conv2D(32, 3, activation="relu")]


@pytest.fixture(scope="module", autouse=True)
def vela():
    need(
        importlib.util.find_spec("ethosu"),
        "Vela is missing; install with: pip install 'tfcompress[ethos-u]'",
    )


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("npu")
    model = keras.Sequential(
        [keras.Input((16, 16, 4), name="x"), *MODEL, keras.layers.Conv2D(8, 3)]
    )
    samples = np.random.default_rng(0).normal(size=(8, 16, 16, 4)).astype("float32")
    precisions = {
        "int8": converters.Int8(samples, io="int8"),
        "float_io": converters.Int8(samples),
        "int4": converters.Int4Weights(samples),
        "float32": converters.Float32(),
    }
    for name, precision in precisions.items():
        converters.convert(model, folder / f"{name}.tflite", precision, batch_size=1)
    return {name: folder / f"{name}.tflite" for name in precisions}


def test_estimates_are_those_that_vela_prints(nets, tmp_path):
    found = edge.EthosU("ethos-u55-128").estimate(nets["int8"])
    code = "import sys; from ethosu.vela.vela import main; main(sys.argv[1:])"
    said = subprocess.run(
        [sys.executable, "-c", code, nets["int8"], "--accelerator-config", "ethos-u55-128",
         "--output-dir", tmp_path, "--verbose-cycle-estimate"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert found.metrics["cycles"] == int(re.search(r"Total cycles +(\d+)", said)[1])
    sram = float(re.search(r"Total SRAM used +([\d.]+) KiB", said)[1])
    assert found.metrics["SRAM bytes"] == pytest.approx(1024 * sram, abs=6)
    flash = float(re.search(r"Flash used +([\d.]+) KiB", said)[1])
    assert found.metrics["flash bytes"] == pytest.approx(1024 * flash, abs=6)
    assert found.ms == pytest.approx(found.metrics["cycles"] / 500e6 * 1e3, rel=1e-6)  # at 500 MHz
    assert found.metrics["NPU"] == "100%" and found.ops == ("ethos-u",)
    assert "Ethos_U55_High_End_Embedded" in found.by


def test_what_stays_on_the_cpu_is_named_with_its_reason(nets):
    found = edge.EthosU().estimate(nets["float_io"])
    assert found.placement.ops_total - found.placement.ops_delegated == 2
    left = found.metrics["left on the CPU"]
    assert "DEQUANTIZE: Unsupported opType" in left
    assert "QUANTIZE: Operation has tensor with unsupported DataType Float32" in left
    assert found.ops == ("DEQUANTIZE", "QUANTIZE", "ethos-u")


def test_benchmark_reports_refusals_and_crashes(nets, tmp_path):
    (tmp_path / "broken.tflite").write_bytes(nets["int8"].read_bytes()[:200])
    paths = [nets["int8"], nets["float32"], nets["int4"], tmp_path / "broken.tflite"]
    fine, floats, crashed, broken = edge.benchmark(paths, target=edge.EthosU(name="npu"))
    assert fine.ok and fine.target == "npu" and fine.median_ms > 0
    assert floats.status == "refused" and "takes no op of it. CONV_2D" in floats.reason
    assert crashed.status == "crashed" and "SIGFPE" in crashed.reason
    assert not broken.ok and "broken.tflite" in broken.reason
    report = edge.Report([fine, crashed])
    assert "(estimated) on npu" in str(report) and "crashed on npu: " in str(report)


def test_a_compiler_that_takes_too_long_is_killed(nets):
    [result] = edge.benchmark([nets["int8"]], target=edge.EthosU(), timeout=0.11, min_seconds=1.0)
    assert result.status == "timeout" and "within 0.11 s" in result.reason
