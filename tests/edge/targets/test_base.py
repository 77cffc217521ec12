import contextlib

import pytest

from tfcompress import edge
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
