import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.warm_children import WarmProcess
from tfcompress import converters
from tfcompress.converters.jobs import run as module
from tfcompress.converters.jobs.run import ChildError, run
from tfcompress.edge.system import child
from tfcompress.edge.system.child import Process
from tfcompress.edge.system.tflite import PROBE

# Before the fixture of all tests replaces it.
START_AS_USERS_DO = module._start
MAIN = Path(module.__file__).with_name("__main__.py")

JOB = """
import os
import sys
import time


def job(request):
    print("a word on stdout")
    os.write(1, b"a word from C\\n")
    if request["do"] == "die":
        os.abort()
    if request["do"] == "hang":
        time.sleep(600)
    if request["do"] == "raise":
        raise KeyError("layer")
    if request["do"] == "raise lines":
        raise ValueError("the first line\\nthe second")
    if request["do"] == "answer 3":
        return 3
    return {"modules": sorted(sys.modules), "do": request["do"]}
"""


@pytest.fixture(params=["as users start it", "warm"])
def start(request, monkeypatch):
    """Jobs of a folder of our own, in a child of either kind."""

    def started(folder):
        package = folder / "package"
        shutil.copytree(MAIN.parent, package / "jobs")
        shutil.copytree(Path(child.__file__).parent, folder / "edge" / "system")
        (package / "jobs" / "test.py").write_text(JOB)
        main = package / "jobs" / "__main__.py"
        if request.param == "warm":
            return WarmProcess(main, folder)
        return Process([sys.executable, "-P", main], folder=folder)

    monkeypatch.setattr(module, "_start", started)


@pytest.mark.usefixtures("start")
def test_run_returns_the_reply_whatever_the_job_prints(tmp_path):
    reply = run("jobs.test", {"do": "reply"}, tmp_path, timeout=60)
    assert reply["do"] == "reply"
    assert "tfcompress" not in reply["modules"]


@pytest.mark.usefixtures("start")
@pytest.mark.parametrize(
    ("do", "timeout", "reason", "text"),
    [
        ("raise", 60, "failed", "failed: KeyError: 'layer'"),
        ("raise lines", 60, "failed", "failed: ValueError: the first line\nthe second"),
        (
            "answer 3",
            60,
            "failed",
            """failed: the process answered '{"ok": true, "result": 3}\\n'""",
        ),
        ("die", 60, "was killed by SIGABRT", "was killed by SIGABRT: a word from C"),
        ("hang", 0.5, "took longer than 0.5 s", "took longer than 0.5 s"),
    ],
)
def test_run_explains_how_a_job_failed(do, timeout, reason, text, tmp_path):
    with pytest.raises(ChildError) as caught:
        run("jobs.test", {"do": do}, tmp_path, timeout)
    assert (caught.value.reason, str(caught.value)) == (reason, text)
    if do == "raise":
        assert "a word on stdout" in caught.value.log
        assert 'jobs/test.py", line' in caught.value.log


def test_run_in_a_child_as_users_start_it(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_start", START_AS_USERS_DO)
    reply = run("jobs.read", {"path": os.fspath(PROBE)}, tmp_path, timeout=60)
    assert reply == {"load_error": None}
    with pytest.raises(ChildError, match="failed: KeyError: 'path'"):
        run("jobs.read", {}, tmp_path, timeout=60)
    with pytest.raises(ChildError, match=r"took longer than 0\.001 s"):
        run("jobs.read", {}, tmp_path, timeout=0.001)


@pytest.mark.parametrize("job", ["jobs.read", "jobs.lower"])
def test_children_import_no_more_than_they_need(job):
    # The child's own entry, with a request that no job can read: it imports, fails, and ends.
    code = (
        "import runpy, sys\n"
        "runpy.run_path(sys.argv[1], run_name='__main__')\n"
        "names = ('tfcompress', 'keras', 'tensorflow')\n"
        "print('imported', *(name for name in names if sys.modules.get(name)), file=sys.stderr)\n"
    )
    main = Path(converters.__file__).with_name("jobs") / "__main__.py"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(main)],
        input=json.dumps({"command": job, "arguments": {}}) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["kind"] in ("KeyError", "TypeError")
    assert done.stderr.splitlines()[-1].split() == ["imported"]
