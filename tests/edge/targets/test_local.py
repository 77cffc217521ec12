import json

from tfcompress import edge
from tfcompress.edge.system.tflite import PROBE
from tfcompress.edge.targets.base import TARGETS

QUICK = {"min_runs": 4, "min_seconds": 0.0, "rounds": 2, "warmup": 0}


def test_local_is_the_default_target():
    assert TARGETS.get("local") == edge.Local()
    assert edge.benchmark(PROBE, **QUICK).target == "local"


def test_session_answers_and_reads_files_where_they_are(tmp_path):
    with edge.Local().session([PROBE, tmp_path]) as (child, paths):
        assert paths == [str(PROBE), str(tmp_path)]
        assert child.request("probe", 60, delegate="xnnpack")["available"]
    assert child.peer.wait(0) is not None


def test_emulated_machine_has_emulated_latencies():
    target = edge.Local("qemu", emulated=True)
    result = edge.benchmark(PROBE, target=target, **QUICK)
    assert (result.status, result.target, result.emulated) == ("ok", "qemu", True)
    report = edge.Report(result)
    assert report.rows()[1][-1] == "XNNPACK on qemu"
    assert edge.Report.from_dict(json.loads(report.to_json())) == report


def test_delegates_and_placement_ask_the_target():
    target = edge.Local("another")
    assert edge.delegates(target=target)["reference"].available
    assert str(edge.placement(PROBE, target=target)) == "XNNPACK"
