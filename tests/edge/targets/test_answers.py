"""Workers of another version, or somebody else's."""

import contextlib
import json
import sys

import pytest

from tfcompress import edge
from tfcompress.edge.system.tflite import PROBE

# Answers each command with what stands for it in the first argument.
WORKER = """
import json, sys
answers = json.loads(sys.argv[1])
for line in sys.stdin:
    print(json.dumps({"ok": True, "result": answers[json.loads(line)["command"]]}), flush=True)
"""

MACHINE = dict.fromkeys(("cpu", "os", "python", "runtime", "date"), "x") | {"cores": 1}
PLACED = {"delegate": "xnnpack", "ops_total": 1, "ops_delegated": 1, "partitions": 1}
GOOD = {
    "load": {"load_ms": 1, "input_shapes": {"x": [1, 4]}, "machine": MACHINE, "peak": None,
             "base": 5, "how": "VmHWM"},
    "round": {"ns": [1000, 2000]},
    "finish": PLACED,
    "placement": PLACED,
    "probe": {"name": "xnnpack", "available": True, "reason": ""},
}  # fmt: skip


class Other:
    name, emulated = "other", False

    def __init__(self, **answers):
        self.answers = {**GOOD, **answers}

    @contextlib.contextmanager
    def session(self, files):
        process = edge.Process([sys.executable, "-c", WORKER, json.dumps(self.answers)])
        with edge.Child(process) as child:
            yield edge.Session(child, [str(file) for file in files])


def measure(**answers):
    return edge.benchmark(PROBE, target=Other(**answers), min_runs=2, min_seconds=0.0, rounds=2)


def test_benchmark_takes_the_answers_of_any_worker():
    result = measure()
    assert (result.status, result.reason, result.runs, result.median_ms) == ("ok", "", 4, 0.0015)
    assert (result.machine.cores, result.base_memory_bytes) == (1, 5)


@pytest.mark.parametrize(
    ("command", "answer", "said"),
    [
        ("load", {}, "load_ms"),
        ("load", {**GOOD["load"], "load_ms": "fast"}, "load_ms is 'fast'"),
        ("load", {**GOOD["load"], "machine": {"name": "pi"}}, "name"),
        ("load", {**GOOD["load"], "machine": "pi"}, "'pi' is no Machine"),
        ("round", {"ns": []}, "ns is empty"),
        ("round", {"ns": [1, None]}, "ns is"),
        ("round", {"times": [1]}, "times"),
    ],
)
def test_benchmark_reports_a_worker_with_wrong_fields_as_a_result(command, answer, said):
    result = measure(**{command: answer})
    assert (result.status, result.median_ms) == ("error", None)
    assert f"the worker's answer to '{command}' does not fit" in result.reason
    assert said in result.reason
    assert "does not fit" in str(edge.Report(result))


def test_benchmark_keeps_the_times_of_a_worker_whose_placement_is_wrong():
    result = measure(finish={"ops": 3})
    assert (result.status, result.runs, result.placement) == ("ok", 4, None)


def test_placement_and_delegates_report_wrong_fields():
    target = Other(placement={"ops": 3}, probe={"available": "yes"})
    with pytest.raises(edge.ModelRefused, match=r"add\.tflite|probe\.tflite.*'placement'"):
        edge.placement(PROBE, target=target)
    found = edge.delegates(target=target)["xnnpack"]
    assert not found.available and "does not fit" in found.reason
