import os
import signal
import sys

import pytest

from tfcompress.edge.system.child import Child, ChildFailure, Process, environment


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("import os; os.kill(os.getpid(), 11)", "crashed", "was killed by SIGSEGV during 'x'"),
        ("import os; os.abort()", "crashed", "SIGABRT"),
        ("raise SystemExit('oh dear')", "crashed", "exit code 1 .*its last words: oh dear"),
        ("import time; time.sleep(600)", "timeout", "no answer to 'x' within 0.5 s"),
        ("print('not json'); import time; time.sleep(600)", "error", "'not json"),
        ("print(5); import time; time.sleep(600)", "error", "answered '5"),
        ('print(\'{"ok": 1, "result": 7}\')', "error", "answered"),
        ("import os; os.write(1, bytes(range(256)) + b'\\n')", "error", "answered"),
    ],
)
def test_request_explains_how_a_child_failed(code, status, reason):
    with Child(Process([sys.executable, "-u", "-c", code])) as child:
        with pytest.raises(ChildFailure, match=reason) as caught:
            child.request("x", 0.5 if status == "timeout" else 60)
        assert caught.value.status == status


ECHO = """
import json, os, sys
print("noise before any answer", file=sys.stderr)
for line in sys.stdin:
    asked = json.loads(line)
    if asked["command"] == "echo":
        answer = {"ok": True, "result": asked["arguments"]}
    else:
        answer = {"ok": False, "status": "refused", "kind": "ValueError", "message": "no"}
    print(json.dumps(answer), flush=True)
"""


def test_request_sends_arguments_and_returns_the_result():
    with Child(Process([sys.executable, "-c", ECHO])) as child:
        # Names that the protocol itself uses are arguments like any other.
        arguments = {
            "command": "x",
            "timeout": 1,
            "self": None,
            "text": "é\n",
            "many": [1] * 50_000,
        }
        assert child.request("echo", 60, **arguments) == arguments
        with pytest.raises(ChildFailure, match="refused: no") as caught:
            child.request("other", 60)
        assert (caught.value.kind, caught.value.ending) == ("ValueError", "")
        assert child.request("echo", None) == {}
        assert child.log() == "noise before any answer\n"


def test_request_to_a_dead_child_fails_each_time():
    with Child(Process([sys.executable, "-c", "raise SystemExit(7)"])) as child:
        for _ in range(2):
            with pytest.raises(ChildFailure) as caught:
                child.request("x", 60)
            assert caught.value.ending == "ended with exit code 7"


def test_close_ends_a_child_that_does_not_read(tmp_path):
    child = Child(Process([sys.executable, "-c", "import time; time.sleep(600)"], folder=tmp_path))
    child.close()
    assert child.peer.wait(0) == -signal.SIGKILL


def test_close_does_not_wait_for_what_the_child_started(tmp_path):
    # The grandchild holds the stream of the answers open.
    child = Child(Process(["sh", "-c", f"sleep 600 & echo $! > {tmp_path}/pid; exit 3"]))
    try:
        assert child.peer.wait(60) == 3
        child.close()
        os.kill(int((tmp_path / "pid").read_text()), 0)  # it is still there
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


class Interrupted(Process):
    def wait(self, timeout):
        raise KeyboardInterrupt


def test_close_kills_the_child_when_it_is_interrupted():
    child = Child(Interrupted([sys.executable, "-c", "import time; time.sleep(600)"]))
    with pytest.raises(KeyboardInterrupt):
        child.close()
    assert Process.wait(child.peer, 0) == -signal.SIGKILL
    child.peer.close()


def test_process_that_cannot_be_started_raises_an_error_that_names_it():
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        Process(["no-such-program"])


def test_process_has_the_environment_that_is_given():
    code = "import json, os; print(json.dumps({'ok': True, 'result': {'x': os.environ['X']}}))"
    with Child(Process([sys.executable, "-c", code], {"X": "y"})) as child:
        assert child.request("x", 60) == {"x": "y"}


def test_environment_leaves_the_current_folder_out_of_pythonpath(monkeypatch):
    for given, kept in (("", None), (":", None), (":/a::/b:", "/a:/b"), ("/a", "/a")):
        monkeypatch.setenv("PYTHONPATH", given.replace(":", os.pathsep))
        found = environment(EXTRA="1")
        assert found["EXTRA"] == "1" and found["PATH"] == os.environ["PATH"]
        assert found.get("PYTHONPATH") == (kept and kept.replace(":", os.pathsep))
    assert "EXTRA" not in os.environ
