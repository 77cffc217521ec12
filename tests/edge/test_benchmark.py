import contextlib
import importlib
import json
import os
import signal

import numpy as np
import pytest

from tests.golden.test_golden import HERE
from tfcompress import edge
from tfcompress.edge.system.tflite import PROBE

# The package's attribute of this name is the function.
module = importlib.import_module("tfcompress.edge.benchmark")

QUICK = {"min_runs": 12, "min_seconds": 0.0, "rounds": 3, "warmup": 2}


class Recorded:
    """This machine; keeps the children of its sessions, in the order of the files."""

    name, emulated = "recorded", False

    def __init__(self):
        self.children = []

    @contextlib.contextmanager
    def session(self, files):
        with edge.Local().session(files) as session:
            self.children.append(session.child)
            yield session


def test_benchmark_fills_every_field_of_a_result(files):
    result = edge.benchmark(files["int8_fixed"], threads=2, **QUICK)
    assert (result.status, result.reason, result.runs) == ("ok", "", 12)
    assert (result.name, result.threads, result.delegate) == ("int8_fixed", 2, "xnnpack")
    assert result.bytes == files["int8_fixed"].stat().st_size
    assert 0 < result.gzip_bytes < result.bytes
    assert 0 < result.min_ms <= result.p10_ms <= result.median_ms <= result.p90_ms <= result.p99_ms
    assert result.min_ms <= result.mean_ms and result.std_ms >= 0
    assert result.load_ms > 0
    assert result.peak_memory_bytes > result.base_memory_bytes > 2**20
    assert result.memory_method == "VmHWM"
    assert (result.speedup, result.speedup_p10, result.speedup_p90) == (1, 1, 1)
    assert result.placement == edge.placement(files["int8_fixed"])
    assert result.input_shapes == {"image": [1, 8, 8, 1]}
    assert result.machine.runtime.startswith("ai-edge-litert ")
    assert result.machine.cores >= 1 and result.machine.cpu
    assert not result.emulated
    assert edge.BenchmarkResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_benchmark_lets_files_take_turns(files, monkeypatch):
    turns = []
    target = Recorded()
    request = edge.Child.request

    def recorded(self, command, timeout, **arguments):
        if command == "round":
            turns.append((target.children.index(self), arguments["runs"]))
        return request(self, command, timeout, **arguments)

    monkeypatch.setattr(edge.Child, "request", recorded)
    seen = []
    results = edge.benchmark(
        [files["fixed"], files["int8_fixed"]],
        names=["a", "b"],
        target=target,
        progress=lambda done, total: seen.append((done, total)),
        **QUICK,
    )
    assert turns == [(0, 4), (1, 4), (1, 4), (0, 4), (0, 4), (1, 4)]
    assert seen == [(done, 6) for done in range(1, 7)]
    assert [result.name for result in results] == ["a", "b"]
    assert results[1].speedup_p10 <= results[1].speedup <= results[1].speedup_p90


def test_benchmark_measures_at_least_min_runs_and_min_seconds():
    assert edge.benchmark(PROBE, min_runs=7, min_seconds=0.0, rounds=3).runs == 9
    assert edge.benchmark(PROBE, min_runs=1, min_seconds=0.05, rounds=2).runs > 2


def test_benchmark_reports_a_crash_as_a_result(files):
    target = Recorded()

    def crash(done, total):
        if done == 3:
            os.kill(target.children[1].peer.pid, signal.SIGSEGV)

    first, second, third = edge.benchmark(
        [files["fixed"], files["int8_fixed"], PROBE], target=target, progress=crash, **QUICK
    )
    assert (second.status, second.ok) == ("crashed", False)
    assert "SIGSEGV" in second.reason and "'round'" in second.reason
    assert second.median_ms is None and second.speedup is None
    assert second.bytes == files["int8_fixed"].stat().st_size
    assert first.ok and third.ok and third.speedup > 0


def test_benchmark_gives_no_speedup_if_the_first_file_failed(files):
    target = Recorded()

    def crash(done, total):
        if done == 1:
            os.kill(target.children[0].peer.pid, signal.SIGKILL)

    first, second = edge.benchmark([files["fixed"], PROBE], target=target, progress=crash, **QUICK)
    assert first.status == "crashed"
    assert second.ok and second.speedup is None


@pytest.mark.slow("waits until a child is given up")
def test_benchmark_reports_a_hang_as_a_result(files):
    target = Recorded()

    def hang(done, total):
        if done == 1:
            os.kill(target.children[0].peer.pid, signal.SIGSTOP)

    # Twenty seconds, so that a busy machine's slow loading is no hang.
    first, second = edge.benchmark(
        [files["fixed"], PROBE], target=target, progress=hang, timeout=20.0, **QUICK
    )
    assert first.status == "timeout" and "within 20 s" in first.reason
    assert second.ok


def test_benchmark_reports_refusals_as_results(files, tmp_path, no_gpu):
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(PROBE.read_bytes()[:300])
    results = edge.benchmark([tmp_path / "none.tflite", broken, files["fixed"]], "gpu", **QUICK)
    assert [result.status for result in results] == ["refused"] * 3
    assert "no such file" in results[0].reason and results[0].bytes is None
    assert "corrupt or cut off" in results[1].reason and results[1].bytes == 300
    assert "No adapters found" in results[2].reason


def test_benchmark_refuses_wrong_gpu_results_and_marks_a_software_gpu_as_emulated(
    files, software_gpu
):
    good, wrong = edge.benchmark([files["fixed"], files["onehot"]], "gpu", **QUICK)
    assert good.ok and good.emulated and good.placement.software
    assert "with the CPU's copy" in good.memory_method
    assert wrong.status == "refused" and "differs from XNNPACK" in wrong.reason


def test_benchmark_runs_the_inputs_that_are_given(files):
    image = np.zeros((3, 8, 8, 1), np.float32)
    result = edge.benchmark(files["float32"], inputs=image, **QUICK)
    assert result.input_shapes == {"image": [3, 8, 8, 1]}
    pair = [np.zeros((2, 3), np.float32)] * 2
    assert edge.benchmark(files["two"], inputs=pair, **QUICK).ok
    named = {"x_2": pair[0], "x_10": pair[1]}
    assert edge.benchmark(files["two"], inputs=named, **QUICK).ok
    assert edge.benchmark(PROBE, inputs=[[1.0, 2.0, 3.0, 4.0]], **QUICK).ok
    unknown = edge.benchmark(PROBE, inputs={"file": np.zeros((1, 4), np.float32)}, **QUICK)
    assert unknown.status == "refused" and "unknown: ['file']" in unknown.reason
    many = edge.benchmark(files["fixed"], inputs=image, **QUICK)
    assert many.status == "refused" and "holds 3 batches" in many.reason
    assert edge.benchmark(files["embedding"], **QUICK).ok


def test_benchmark_names_the_files(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    paths = [tmp_path / folder / "model.tflite" for folder in ("a", "b")]
    # Two files of one name are told apart by their paths.
    assert module._labels([str(path) for path in paths], None) == [str(path) for path in paths]
    with pytest.raises(ValueError, match="one for each file"):
        edge.benchmark(paths, names=["one"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delegate": "tpu"}, "`delegate` must be one of"),
        ({"threads": 0}, "`threads` must be an integer from 1"),
        ({"min_runs": 0}, "`min_runs` must be an integer from 1"),
        ({"rounds": 0}, "`rounds` must be an integer from 1"),
        ({"min_seconds": -1.0}, "`min_seconds` must be a number from 0"),
        ({"warmup": -1}, "`warmup` must be an integer from 0"),
        ({"timeout": 0.1}, "`timeout` must be longer than a round"),
    ],
)
def test_benchmark_rejects_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        edge.benchmark(PROBE, **options)
    with pytest.raises(ValueError, match="a list of one or more"):
        edge.benchmark([])


def test_benchmark_runs_the_signature_that_is_asked_for():
    file = HERE / "language_model.tflite"
    options = {"min_runs": 3, "min_seconds": 0.0, "rounds": 1, "warmup": 0}
    found = edge.benchmark(file, signature="prefill_8", **options)
    assert (found.status, found.input_shapes["input_pos"]) == ("ok", [8])
    assert found.placement is None  # LiteRT tells the ops of the first signature alone
    missing = edge.benchmark(file, signature="verify", **options)
    assert missing.status == "refused"
    assert "has no signature 'verify'" in missing.reason
