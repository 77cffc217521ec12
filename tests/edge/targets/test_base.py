import contextlib
import json

import pytest

from tfcompress import edge
from tfcompress.edge.system.child import ChildFailure
from tfcompress.edge.system.tflite import PROBE

QUICK = {"min_runs": 4, "min_seconds": 0.0, "rounds": 2, "warmup": 0}


@pytest.mark.parametrize("value", ["local", edge.Local, None, 3])
def test_benchmark_rejects_a_target_that_is_none_before_anything_runs(value):
    with pytest.raises(TypeError, match=r"such as edge\.Local\(\)\. Received: target="):
        edge.benchmark(PROBE, target=value)
    with pytest.raises(TypeError, match="Received: "):
        edge.register_target(value)


def test_register_target_refuses_a_name_that_is_taken():
    with pytest.raises(ValueError, match="a target named 'local' already"):
        edge.register_target(edge.Local(emulated=True))


class Unreachable:
    name, emulated = "pi", False

    @contextlib.contextmanager
    def session(self, files):
        raise ConnectionRefusedError("no route to host")
        yield


def test_benchmark_reports_an_unreachable_target_as_a_result():
    result = edge.benchmark(PROBE, target=Unreachable(), **QUICK)
    assert (result.status, result.target, result.median_ms) == ("error", "pi", None)
    assert result.reason == "target 'pi' opened no session: no route to host"
    assert result.bytes == PROBE.stat().st_size


class Forgetful(edge.Local):
    @contextlib.contextmanager
    def session(self, files):
        with super().session(files[1:]) as session:
            yield session


def test_benchmark_reports_a_target_that_loses_a_file():
    result = edge.benchmark(PROBE, target=Forgetful(), **QUICK)
    assert result.status == "error"
    assert "one path for each of 1 file(s). Received: []" in result.reason


class Simulator:
    name = "npu"

    def estimate(self, path, timeout=120.0):
        if path.stem == "slow":
            raise edge.ModelRefused("no end in sight") from ChildFailure("timeout", "too slow")
        if not path.exists():
            raise edge.ModelFileError(f"{path}: there is no such file")
        placed = edge.Placement("NPU", 1, 1, 1)
        return edge.Estimate(placed, "a simulator 1.0", 0.25, {"cycles": 1200})


def test_benchmark_marks_what_a_target_estimates(tmp_path):
    seen = []
    files = [PROBE, tmp_path / "none.tflite", tmp_path / "slow.tflite"]
    results = edge.benchmark(files, target=Simulator(), progress=lambda *done: seen.append(done))
    assert [result.status for result in results] == ["ok", "refused", "timeout"]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    first = results[0]
    assert (first.median_ms, first.runs, first.metrics) == (0.25, 0, {"cycles": 1200})
    assert (first.target, first.delegate, first.bytes) == ("npu", "npu", PROBE.stat().st_size)
    report = edge.Report(results)
    assert report.rows()[1][3:] == ["1200", "0.250 (estimated)", "-", "NPU (estimated) on npu"]
    assert "no device ran the file. Figures by a simulator 1.0." in str(report)
    assert edge.Report.from_dict(json.loads(report.to_json())) == report
    told = edge.benchmark(PROBE, target=Simulator(), signature="decode")
    assert told.status == "refused" and "first signature alone" in told.reason


def test_estimator_opens_no_session():
    with pytest.raises(TypeError, match="session"):
        edge.placement(PROBE, target=Simulator())
