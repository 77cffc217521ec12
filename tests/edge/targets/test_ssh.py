"""Files measured over OpenSSH, on a server of this machine; and what is left when it goes wrong."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.helpers import need
from tests.support.ssh_server import ssh_server
from tfcompress import edge
from tfcompress.edge.system.tflite import PROBE
from tfcompress.edge.targets import remote

QUICK = {"min_runs": 4, "min_seconds": 0.0, "rounds": 2, "warmup": 0}
ROOT = Path(__file__).parents[3]
# Machine -> its Python, and the script's arguments that make it.
PIS = {
    "aarch64": (os.environ.get("TFCOMPRESS_PI", ROOT / ".pi/python"), ".pi"),
    "armv7l": (os.environ.get("TFCOMPRESS_PI32", ROOT / ".pi32/python"), ".pi32 armhf"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ssh_server(tmp_path_factory.mktemp("ssh")) as running:
        yield running


def ssh(server, python=sys.executable, **more):
    return edge.Ssh(server.host, os.fspath(python), options=server.options, **more)


def left_behind(server):
    """Files and processes there, once those that are about to end have ended."""
    for _ in range(200):
        if not (found := [*server.tmp.iterdir(), *server.processes()]):
            break
        time.sleep(0.05)
    return found


def test_benchmark_measures_there_and_leaves_nothing_behind(server, files):
    results = edge.benchmark([files["fixed"], files["int8_fixed"]], target=ssh(server), **QUICK)
    assert [result.status for result in results] == ["ok", "ok"], results[0].reason
    assert results[1].target == f"ssh:{server.host}" and results[1].speedup > 0
    assert results[0].placement == edge.placement(files["fixed"])
    assert results[0].machine.runtime.startswith("ai-edge-litert ")
    assert left_behind(server) == []


@pytest.mark.parametrize("name", ["float32", "int8", "words"])
def test_runner_computes_there_what_it_computes_here(server, files, name, rng):
    inputs = rng.normal(size=(3, 8, 8, 1)).astype("float32")
    if name == "words":
        inputs = {"words": np.array(["a", "b\0", ""], object), "ids": np.array([1, 2, 0], "int32")}
    with edge.Runner(files[name], target=ssh(server)) as runner:
        found = runner(inputs)
        np.testing.assert_array_equal(found, edge.Runner(files[name])(inputs))
    assert left_behind(server) == []


def test_delegates_and_placement_ask_the_machine_there(server):
    assert edge.delegates(target=ssh(server))["xnnpack"].available
    assert str(edge.placement(PROBE, target=ssh(server))) == "XNNPACK"


def test_modules_of_the_home_folder_hide_none(server, tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('hidden')")
    (tmp_path / "python").write_text(f'#!/bin/sh\ncd {tmp_path}; exec {sys.executable} "$@"')
    (tmp_path / "python").chmod(0o755)
    assert edge.benchmark(PROBE, target=ssh(server, tmp_path / "python"), **QUICK).ok


def python(folder, text):
    """A command that stands for Python there."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def reason(target, status="error"):
    result = edge.benchmark(PROBE, target=target, **QUICK)
    assert result.status == status and result.median_ms is None
    assert result.reason in str(edge.Report(result))
    return result.reason


def test_what_the_machine_lacks_is_a_row_with_its_reason(server, tmp_path):
    assert "has no 'nothing'; give its Python with python=" in reason(ssh(server, "nothing"))
    bare = python(tmp_path, f'exec {sys.executable} -S "$@"')
    said = reason(ssh(server, bare))
    assert "without numpy (ModuleNotFoundError" in said and "a LiteRT runtime" in said
    assert "pip install numpy ai-edge-litert" in said
    other = tmp_path / "site"
    other.mkdir()
    # As a wheel of another processor raises it.
    (other / "numpy.py").write_text("raise ImportError('wrong ELF class: ELFCLASS64')")
    wrong = python(tmp_path, f'PYTHONPATH={other} exec {sys.executable} "$@"')
    assert "numpy (ImportError: wrong ELF class: ELFCLASS64)" in reason(ssh(server, wrong))
    (other / "numpy.py").write_text("import os; os.kill(os.getpid(), 4)")
    assert "numpy (killed by SIGILL)" in reason(ssh(server, wrong))
    (other / "numpy.py").unlink()
    (other / "ai_edge_litert").mkdir()
    (other / "ai_edge_litert/interpreter.py").write_text("import os; os.kill(os.getpid(), 4)")
    (other / "ai_edge_litert/__init__.py").touch()
    assert "was killed by SIGILL during 'load'" in reason(ssh(server, wrong), "crashed")
    assert left_behind(server) == []


def test_a_machine_that_cannot_be_reached_is_a_row_with_its_reason(server):
    nobody = edge.Ssh(server.host, options=("-F", "none", "-p", "1"))
    assert "cannot be reached: ssh: connect to host 127.0.0.1 port 1" in reason(nobody)
    options = (*server.options, "-o", "PubkeyAuthentication=no")
    said = reason(edge.Ssh(server.host, options=options))
    assert "Permission denied" in said and "ssh-copy-id" in said
    options = ("-o", "StrictHostKeyChecking=yes", *server.options)
    assert "Connect once by hand" in reason(edge.Ssh(server.host, options=options))


def test_a_full_disk_is_a_row_with_its_reason(server, tmp_path):
    # The kernel refuses to write more than 100 blocks of 512 or 1,024 bytes to a file.
    full = python(tmp_path, f'ulimit -f 100; exec {sys.executable} "$@"')
    big = tmp_path / "big.tflite"
    big.write_bytes(PROBE.read_bytes() + bytes(200_000))
    result = edge.benchmark(big, target=ssh(server, full), **QUICK)
    assert "cannot write 200,516 bytes of big.tflite to" in result.reason, result.reason
    assert left_behind(server) == []


def test_ssh_that_is_missing_is_a_row_with_its_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install openssh-client" in reason(edge.Ssh("pi"))


def test_leftovers_of_killed_programs_are_removed_and_those_in_use_are_not(server):
    old = server.tmp / f"{remote.PREFIX}old"
    old.mkdir()
    (old / "model.tflite").touch()
    os.utime(old, (0, 0))
    with ssh(server).session([]) as session:
        assert not old.exists()
        [folder] = server.tmp.iterdir()
        os.utime(folder, (0, 0))
        with ssh(server).session([]):
            assert folder.exists()
        assert session.child.request("probe", 60, delegate="xnnpack")["available"]
    assert left_behind(server) == []


@pytest.mark.parametrize("arguments", [{"host": "-oProxyCommand=x"}, {"host": "a b"}])
def test_a_host_that_would_be_an_option_is_refused(arguments):
    with pytest.raises(ValueError, match="`host` must be user@machine"):
        edge.Ssh(**arguments)


@pytest.mark.slow("twenty runs that are killed")
def test_killed_at_any_time_nothing_is_left_behind(server, files):
    generator = random.Random(0)
    endings = []
    for turn in range(20):
        target = ssh(server)
        wait = generator.uniform(0.0, 2.0)
        timer = threading.Timer(wait, kill_one, [server, turn % 3])
        timer.start()
        result = edge.benchmark(
            files["int8_fixed"], target=target, min_runs=10, min_seconds=1.5, rounds=3, warmup=0
        )
        timer.join()
        endings.append(result.status)
        assert edge.Report(result).to_json()
        assert left_behind(server) == []
    assert {"crashed"} <= set(endings) <= {"ok", "crashed", "error"}, endings


def kill_one(server, kind):
    """Kill the ssh here, the worker there, or ask the program there to end."""
    here = [
        int(pid) for pid in subprocess.run(
            ["pgrep", "-f", f"^ssh .*{server.folder}"], capture_output=True, text=True, check=False
        ).stdout.split()
    ]  # fmt: skip
    there = server.processes()
    # The program that cleans up is the parent of the others, and SIGKILL would keep it from that.
    children = [pid for pid, parent in there.items() if parent in there]
    victims = [here, children, there.keys() - children][kind]
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM if kind == 2 else signal.SIGKILL)


@pytest.mark.slow("starts an emulated Python on Arm some times")
@pytest.mark.parametrize("name", ["float32", "int8"])
@pytest.mark.parametrize("processor", PIS)
def test_a_raspberry_pi_computes_what_this_machine_computes(server, files, processor, name, rng):
    python, makes = PIS[processor]
    reason = f"no {processor} runtime; make one with: tests/emulated_pi.sh {makes} (Debian)"
    need(Path(python).exists(), reason)
    pi = ssh(server, python, name="pi", emulated=True)
    image = rng.normal(size=(2, 8, 8, 1)).astype("float32")
    with edge.Runner(files[name], target=pi) as runner:
        found = runner(image)
    expected = edge.Runner(files[name])(image)
    # int8 is equal bit for bit; float32 sums come in another order.
    limit = 0.0 if name == "int8" else 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=limit)
    result = edge.benchmark(files[name], target=pi, **QUICK)
    assert (result.status, result.emulated) == ("ok", True), result.reason
    assert processor in result.machine.os
    assert "(emulated)" in str(edge.Report(result))
    assert left_behind(server) == []
