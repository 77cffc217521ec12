"""The folder edge/ alone, where nothing but NumPy and a runtime is installed."""

import ast
import json
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from tests.support.helpers import need
from tfcompress import edge

FOLDER = Path(edge.__file__).resolve().parent

SCRIPT = """
import json, sys, warnings
import numpy as np
warnings.simplefilter("error")
import device
name = sys.argv[1]
image = np.linspace(-1, 1, 128, dtype="float32").reshape(2, 8, 8, 1)
runner = device.Runner(name)
found = {"outputs": runner(image).tolist()}
results = device.benchmark([name, "none.tflite"], min_runs=5, min_seconds=0.0, rounds=2)
report = device.Report([results[0].with_metrics(accuracy=np.float32(0.5)), results[1]])
report.save("report.json"); report.save("report.md"); str(report)
assert device.Report.load("report.json") == report
for call, needs in ((report.table, "rich"), (report.to_html, "matplotlib")):
    try:
        call()
    except ImportError as error:
        assert f"pip install {needs}" in str(error), error
    else:
        raise AssertionError(f"{needs} is installed here")
found["statuses"] = [result.status for result in results]
found["reasons"] = [result.reason for result in results]
found["runtime"] = results[0].machine.runtime
found["placement"] = str(device.placement(name))
found["delegates"] = {n: d.available for n, d in device.delegates().items()}
found["modules"] = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps(found))
"""


def test_edge_imports_nothing_heavy():
    allowed = {"numpy", *sys.stdlib_module_names}
    late = {"report.py": {"rich"}, "plots.py": {"matplotlib"}}
    for file in FOLDER.rglob("*.py"):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                depth = len(file.relative_to(FOLDER).parts)
                assert node.level <= depth, f"{file.name} imports from outside the folder"
                continue
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in (name.partition(".")[0] for name in names):
                assert name in allowed | late.get(file.name, set()), f"{file.name} imports {name}"
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                names += [alias.name for alias in getattr(node, "names", [])]
                assert not {"rich", "matplotlib"} & {n.partition(".")[0] for n in names}


def test_without_a_runtime_the_error_says_what_to_install(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "device", ignore=shutil.ignore_patterns("__pycache__"))
    script = (
        "import sys; sys.modules['ai_edge_litert'] = sys.modules['tflite_runtime'] = None\n"
        "import device; print(device.benchmark.__name__)\n"
        "try: device.Runner('device/system/probe.tflite')\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert "pip install ai-edge-litert" in done.stdout, done.stderr
    assert "pip install tflite-runtime 'numpy<2'" in done.stdout


def test_the_folder_that_the_documentation_says_to_copy_runs_by_itself(tmp_path):
    page = (FOLDER.parent / "docs/methods/run_and_measure.md").read_text("utf-8")
    [name] = re.findall(r"`scp -r (\S+) \S+:`", page)
    subprocess.run(["cp", "-r", FOLDER.parent / name, tmp_path], check=True)
    script = (
        "import edge, numpy as np\n"
        "with edge.Runner('edge/system/probe.tflite', isolated=True) as runner:\n"
        "    print(runner(np.zeros((1, 4), 'float32')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "[[1. 1. 1. 1.]]\n", done.stderr


def _run_on(folder, packages, model):
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    got = subprocess.run(
        [python, "-m", "pip", "install", "-q", *packages], capture_output=True, text=True
    )
    need(got.returncode == 0, f"pip cannot install {packages}: {got.stderr[-300:]}")
    shutil.copytree(FOLDER, folder / "device", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(model, folder / "model.tflite")
    done = subprocess.run(
        [python, "-c", SCRIPT, "model.tflite"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.slow("makes a fresh environment with NumPy and a runtime alone")
@pytest.mark.parametrize(
    ("packages", "runtime"),
    [
        (["numpy", "ai-edge-litert"], "ai-edge-litert"),
        pytest.param(
            ["numpy<2", "tflite-runtime"],
            "tflite-runtime",
            marks=pytest.mark.skipif(
                sys.version_info >= (3, 12), reason="tflite-runtime has no wheel for this Python"
            ),
        ),
    ],
)
def test_the_folder_alone(files, tmp_path, packages, runtime):
    found = _run_on(tmp_path, packages, files["float32"])
    image = np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 8, 8, 1)
    # Two runtimes, years apart: float32 sums of order 1 in another order.
    expected = edge.Runner(files["float32"])(image)
    np.testing.assert_allclose(found["outputs"], expected, rtol=0, atol=1e-5)
    assert found["statuses"] == ["ok", "refused"], found["reasons"]
    assert found["runtime"].startswith(runtime)
    assert found["delegates"]["reference"]
    heavy = {"tensorflow", "keras", "tfcompress", "rich", "matplotlib", "click"}
    assert not heavy & set(found["modules"])
