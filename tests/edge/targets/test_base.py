import contextlib

import pytest

from tfcompress import edge
from tfcompress.edge.system.tflite import PROBE

QUICK = {"min_runs": 4, "min_seconds": 0.0, "rounds": 2, "warmup": 0}


@pytest.mark.parametrize("value", ["local", edge.Local, None, 3])
def test_what_is_no_target_is_refused_before_anything_runs(value):
    with pytest.raises(TypeError, match=r"such as edge\.Local\(\)\. Received: "):
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


def test_target_that_cannot_be_reached_is_a_result():
    result = edge.benchmark(PROBE, target=Unreachable(), **QUICK)
    assert (result.status, result.target, result.median_ms) == ("error", "pi", None)
    assert result.reason == "target 'pi' opened no session: no route to host"
    assert result.bytes == PROBE.stat().st_size
