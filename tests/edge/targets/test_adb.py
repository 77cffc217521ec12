"""Files on a phone, by a real adb client and a scripted server of its protocol."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.adb_server import adb_server, need_adb
from tfcompress import edge
from tfcompress.edge.system.tflite import PROBE
from tfcompress.edge.targets.names import available

SAID = """INFO: STARTING!
INFO: Loaded model model.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
VERBOSE: Replacing 1 out of 1 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 \
partitions for subgraph 0.
INFO: Explicitly applied XNNPACK delegate, and the model graph will be completely executed by the \
delegate.
INFO: count=5 first=3100 curr=2855 min=2602 max=16080 avg=3333.5 std=2111
INFO: count=50 first=2814 curr=2745 min=2602 max=21356 avg=2911.25 std=1234 p5=2611 median=2791 \
p95=3141
INFO: Inference timings in us: Init: 6283, First inference: 2718, Warmup (avg): 3333.5, \
Inference (avg): 2911.25
INFO: Memory footprint delta from the start of the tool (MB): init=38.125 overall=40.25
"""


@pytest.fixture
def server(tmp_path):
    with adb_server(tmp_path) as running:
        yield running


@pytest.fixture
def phone(server, tmp_path):
    """Return a target whose `benchmark_model` is a shell script."""

    def made(script=f"cat <<'EOF'\n{SAID}EOF", serial=None):
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{script}\n")
        return edge.Adb(serial, path, options=server.options)

    return made


def eventually(condition):
    """Wait until a condition holds; return whether it does."""
    for _ in range(200):
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_benchmark_says_who_measured_and_leaves_nothing_behind(server, phone):
    result = edge.benchmark(PROBE, threads=2, min_runs=7, warmup=3, target=phone())
    assert result.ok, result.reason
    assert result.measured_by == "benchmark_model on Google Pixel 7, Android 14, arm64-v8a"
    assert (result.median_ms, result.mean_ms, result.runs) == (2.791, 2.91125, 50)
    assert (result.target, result.threads, result.machine) == ("adb", 2, None)
    assert result.metrics == {"memory MiB": 40.25, "max ms": 21.356}
    [command] = [seen for seen in server.seen if "--graph" in seen]
    for flag in ("--use_xnnpack=true", "--num_threads=2", "--num_runs=7", "--warmup_runs=4"):
        assert f" {flag} " in command
    assert list(server.tmp.iterdir()) == []
    report = edge.Report(result)
    assert report.rows()[1][-1] == "XNNPACK on adb"
    assert "Measured by benchmark_model on Google Pixel 7" in str(report)
    assert "outputs were not compared" in str(report)
    assert edge.Report.from_dict(json.loads(report.to_json())) == report


def test_the_program_gets_the_file_and_the_flag_of_each_delegate(phone, tmp_path):
    seen = tmp_path / "seen"
    script = f"cmp model.tflite {PROBE.resolve()} && echo $* >> {seen}\ncat <<'EOF'\n%sEOF"
    for delegate, label in (("gpu", "GPU"), ("nnapi", "NNAPI")):
        target = phone(script % SAID.replace("XNNPACK", label).replace("XNNPack", label))
        result = edge.benchmark(PROBE, delegate, target=target)
        assert (result.ok, result.delegate) == (True, delegate), result.reason
        assert result.placement == edge.Placement(delegate, 1, 1, 1)
    assert ["--use_gpu=true" in line for line in seen.read_text().splitlines()] == [True, False]
    with pytest.raises(ValueError, match="one of 'xnnpack', 'gpu', 'nnapi'"):
        edge.benchmark(PROBE, "reference", target=phone())


@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [
        ("echo ERROR: Encountered unresolved custom op: X; exit 1", "refused", "custom op: X"),
        ("kill -SEGV $$", "crashed", "was killed by SIGSEGV"),
        ("kill -KILL $$", "crashed", "was killed by SIGKILL"),
        ("exit 126", "error", "Is it built for Android"),
        ("echo hello", "refused", "printed no latency. It said: hello"),
    ],
)
def test_a_program_that_fails_is_a_row_with_its_reason(server, phone, script, status, reason):
    result = edge.benchmark(PROBE, target=phone(script))
    assert (result.status, result.median_ms) == (status, None), result.reason
    assert reason in result.reason and result.reason in str(edge.Report(result))
    assert list(server.tmp.iterdir()) == []


def test_a_gpu_that_takes_no_op_is_no_latency_of_a_gpu(phone):
    result = edge.benchmark(PROBE, "gpu", target=phone())
    assert result.status == "refused" and "the GPU took no op of it" in result.reason


def test_a_program_without_end_is_killed_there(server, phone, tmp_path):
    target = phone(f"echo $$ > {tmp_path}/process; exec sleep 60")
    result = edge.benchmark(PROBE, target=target, min_seconds=0.0, timeout=2.0)
    assert (result.status, list(server.tmp.iterdir())) == ("timeout", [])
    process = int((tmp_path / "process").read_text())
    assert eventually(lambda: not Path(f"/proc/{process}/stat").exists())


def test_a_broken_connection_is_a_row_with_its_reason(server, phone):
    server.cut = "--graph"
    result = edge.benchmark(PROBE, target=phone())
    assert result.status == "error" and "connection to the phone broke" in result.reason
    assert list(server.tmp.iterdir()) == []


def test_a_full_disk_is_a_row_with_its_reason(server, phone):
    server.full = True
    result = edge.benchmark(PROBE, target=phone())
    assert result.status == "error", result.reason
    assert "program cannot be sent to the phone" in result.reason
    assert "No space left on device" in result.reason
    assert list(server.tmp.iterdir()) == []


def test_control_c_leaves_nothing_behind(server, phone, tmp_path):
    target = phone(f"echo $$ > {tmp_path}/process; exec sleep 60")
    adb = f"Adb(None, {str(target.benchmark_model)!r}, options={target.options!r})"
    # Programs that a script starts in the background ignore Ctrl-C, and so do their children.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += f"from tfcompress import edge; edge.benchmark({str(PROBE)!r}, target=edge.{adb})"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as user:
        started = tmp_path / "process"
        pids = server.tmp.glob
        assert eventually(lambda: started.exists() and any(p.read_text() for p in pids("*/pid")))
        user.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in user.communicate(timeout=60)[1]
    process = int((tmp_path / "process").read_text())
    assert eventually(lambda: not Path(f"/proc/{process}/stat").exists())
    assert list(server.tmp.iterdir()) == []


def test_leftovers_of_earlier_days_are_removed_and_those_of_today_are_not(server, phone):
    for name, age in (("tfcompress-old", 2e5), ("tfcompress-new", 0), ("other", 2e5)):
        (server.tmp / name).mkdir()
        os.utime(server.tmp / name, (time.time() - age,) * 2)
    assert edge.benchmark(PROBE, target=phone()).ok
    assert {entry.name for entry in server.tmp.iterdir()} == {"tfcompress-new", "other"}


@pytest.mark.parametrize(
    ("states", "serial", "reason"),
    [
        ({}, None, "No phone is connected. Turn on its developer options"),
        ({"A": "device", "B": "device"}, None, "2 phones are connected: A, B. Say which one"),
        ({"A": "device", "B": "device"}, "C", "no phone C. adb devices lists: A (device), B"),
        ({"A": "unauthorized"}, None, "'unauthorized': unlock it, and allow USB debugging"),
        ({"A": "device", "B": "offline"}, "B", "'offline': unplug it"),
        ({"A": "no permissions (udev); see [x]"}, None, "may not open the USB device"),
        ({"A": "recovery"}, None, "Phone A is 'recovery'"),
    ],
)
def test_a_phone_that_cannot_be_used_says_what_to_do(server, phone, states, serial, reason):
    server.states = states
    result = edge.benchmark(PROBE, target=phone(serial=serial))
    assert result.status == "error" and reason in result.reason
    assert server.seen == []


def test_one_ready_phone_among_others_is_taken(server, phone):
    server.states = {"A": "offline", "B": "device"}
    assert edge.benchmark(PROBE, target=phone()).ok
    assert available(phone(serial="B")).reason.startswith("benchmark_model on Google Pixel 7")


def test_what_is_missing_here_says_what_to_do(tmp_path, monkeypatch):
    found = available(edge.Adb(benchmark_model=tmp_path / "none"))
    assert not found.available and "benchmark_model= (--benchmark-model)" in found.reason
    monkeypatch.setenv("PATH", str(tmp_path))
    result = edge.benchmark(PROBE, target=edge.Adb(benchmark_model=PROBE))
    assert result.status == "error" and "apt-get install adb" in result.reason
    broken = edge.benchmark(tmp_path / "none.tflite", target=edge.Adb())
    assert broken.status == "refused" and "none.tflite" in broken.reason


def test_another_signature_is_refused(phone):
    result = edge.benchmark(PROBE, target=phone(), signature="decode")
    assert result.status == "refused" and "first signature alone" in result.reason


def test_adb_without_a_phone_says_so(tmp_path, monkeypatch):
    need_adb()
    monkeypatch.setenv("HOME", str(tmp_path))  # where adb puts its keys
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # and its log
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        options = ("-P", str(free.getsockname()[1]))
    try:
        if "\tdevice" in subprocess.check_output(["adb", *options, "devices"], text=True):
            pytest.skip("a phone is connected")
        result = edge.benchmark(PROBE, target=edge.Adb(benchmark_model=PROBE, options=options))
    finally:
        subprocess.run(["adb", *options, "kill-server"], check=False)
    assert result.status == "error" and "No phone is connected" in result.reason
