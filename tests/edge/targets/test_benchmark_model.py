"""What benchmark_model prints, in the forms of several releases."""

import pytest

from tfcompress import edge
from tfcompress.edge.targets.benchmark_model import read

OLD = """STARTING!
Use gpu: [1]
INFO: Created TensorFlow Lite delegate for GPU.
Explicitly applied GPU delegate, and the model graph will be {how}
Initialized session in 870.5ms.
count=4 first=1305 curr=1208 min=1173 max=1306 avg=1223.5 std=49

count=50 first=1192 curr=1180 min=1137 max=1247 avg=1.19e+03 std=19

Inference timings in us: Init: 870500, First inference: 1305, Warmup (avg): 1223.5, Inference \
(avg): 1.19e+03
Peak memory footprint (MB): init=6.5 overall=64.25
"""
ALL = "completely executed by the delegate."
PART = "partially executed by the delegate w/ 3 delegate kernels."


def test_an_old_release_tells_the_mean_and_not_the_median():
    found = read(OLD.format(how=ALL), "gpu", "a phone")
    assert found == edge.Measurement(
        "a phone", None, 870.5, 50, 1.19, 1.137, 0.019, None,
        {"memory MiB": 64.25, "max ms": 1.247, "delegated": "all ops"},
    )  # fmt: skip


def test_pieces_are_told_where_no_ops_are_counted():
    found = read(OLD.format(how=PART), "gpu", "a phone")
    assert found.metrics["delegated"] == "3 pieces, not all ops"


def test_counted_ops_are_those_of_the_delegate_and_not_of_the_one_after_it():
    counted = "Replacing {} node(s) with delegate ({}) node, yielding {} partitions for subgraph 0."
    lines = (counted.format("2 out of 9", "TfLiteXNNPackDelegate", 1),
             counted.format("7 out of 9", "TfLiteGpuDelegateV2", 2))  # fmt: skip
    found = read("\n".join(lines) + "\n" + OLD.format(how=PART), "gpu", "a phone")
    assert found.placement == edge.Placement("gpu", 9, 7, 2) and "delegated" not in found.metrics


def test_a_single_run_is_its_own_mean():
    said = "count=1 curr=42\nInference timings in us: Init: 5, First inference: 42, Warmup (avg): "
    found = read(said + "42, Inference (avg): 42", "xnnpack", "a phone")
    assert (found.runs, found.mean_ms, found.min_ms, found.std_ms) == (1, 0.042, 0.042, 0.0)


@pytest.mark.parametrize("how", ["executed", None])
def test_a_delegate_that_took_nothing_is_refused_with_what_was_said(how):
    said = OLD.format(how=ALL).replace(
        "Explicitly applied GPU delegate, and the model graph will be completely executed",
        "Though GPU delegate is explicitly applied, the model graph will not be executed"
        if how
        else "GPU acceleration is unsupported on this platform, so nothing is executed",
    )
    with pytest.raises(ValueError, match=r"took no op of it.*(not be executed|is unsupported)"):
        read(said, "gpu", "a phone")


def test_a_report_marks_a_mean():
    result = edge.BenchmarkResult("a", "a", "gpu", mean_ms=1.5, target="adb", measured_by="x")
    assert edge.Report(result).rows()[1][-3:] == ["1.50 (mean)", "-", "gpu on adb"]
