"""What a start costs: the command line and `import tfcompress` load only what they use."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import tfcompress
from tests.golden.test_golden import HERE as GOLDEN
from tfcompress.edge.system.tflite import PROBE
from tfcompress.lazy import REGISTERING

HEAVY = {"keras", "tensorflow"}
COMMAND = """
import json, sys
from tfcompress.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print()
print(json.dumps({"code": code, "modules": sorted(sys.modules)}))
"""


def modules_after(arguments: list[str], environment: dict[str, str] | None = None) -> set[str]:
    """Names of the modules that a command has imported when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        capture_output=True, text=True, timeout=120, check=True, env=environment,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["code"], done.stdout + done.stderr
    return set(found["modules"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["convert", "--help"],
        ["inspect", str(PROBE)],
        ["sparsify", str(PROBE), "out.tflite"],
        ["check-sparse", "--help"],
        ["bench", str(PROBE), "--runs", "1", "--seconds", "0"],
        ["generate", str(GOLDEN / "language_model.tflite"), "--tokens", "1", "--new", "2"],
    ],
    ids=" ".join,
)
def test_a_command_that_needs_no_keras_imports_none(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not HEAVY & modules_after(arguments)


def test_shell_completion_imports_no_keras():
    words = {"COMP_WORDS": "tfcompress con", "COMP_CWORD": "1"}
    program = (
        "import sys\n"
        "from tfcompress.cli import main\n"
        "try:\n"
        "    main(prog_name='tfcompress')\n"
        "finally:\n"
        "    print(*sorted({'keras', 'tensorflow'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False,
        env={**words, "_TFCOMPRESS_COMPLETE": "bash_complete"},
    )  # fmt: skip
    assert "plain,convert" in done.stdout
    assert done.stderr.split() == []


def cost(code: str) -> tuple[float, float]:
    """CPU-seconds and peak MB of a Python program: the least of three runs."""
    program = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', sys.argv[1]], check=True, stdout=-3)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program, code], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(3)
    ]
    return min(float(seconds) for seconds, _ in runs), min(float(peak) for _, peak in runs)


def test_help_costs_little_more_than_python_itself():
    python, _ = cost("pass")
    seconds, megabytes = cost("from tfcompress.cli import main; main(['--help'])")
    # On the machine of the bar, 0.5 CPU-seconds, Python itself takes 0.03. Seen: 7 times.
    assert seconds <= 0.5 / 0.03 * python
    assert megabytes <= 60


@pytest.mark.parametrize(
    "first",
    [
        "import tfcompress, keras",
        pytest.param("import keras, tfcompress", marks=pytest.mark.slow("imports TensorFlow")),
    ],
)
def test_saved_models_load_with_nothing_but_the_import(first):
    file = Path(__file__).parent / "golden" / "quantize_wrapper.keras"
    program = f"{first}\nprint(type(keras.saving.load_model({str(file)!r})).__name__)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "Functional"


def test_every_module_that_registers_classes_is_known():
    root = Path(tfcompress.__file__).parent
    found = {
        ".".join(file.relative_to(root).with_suffix("").parts)
        for file in root.rglob("*.py")
        if "@keras.saving.register_keras_serializable" in file.read_text("utf-8")
    }
    assert found == set(REGISTERING)
