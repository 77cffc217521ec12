"""Files in a real browser: LiteRT.js in headless Chromium; and what is said when it cannot be."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.helpers import need
from tfcompress import edge
from tfcompress.edge.system.tflite import PROBE
from tfcompress.edge.targets import browser_worker
from tfcompress.edge.targets.browser import PROGRAMS
from tfcompress.edge.targets.names import available, target_named

PACKAGE = Path(
    os.environ.get(
        "TFCOMPRESS_LITERTJS", Path(__file__).parents[3] / ".web/node_modules/@litertjs/core"
    )
)
QUICK = {"min_runs": 3, "min_seconds": 0.0, "warmup": 0}


@pytest.fixture
def browser():
    need(
        any(map(shutil.which, PROGRAMS)),
        "Chromium is missing; install with: apt-get install chromium",
    )
    need(
        PACKAGE.is_dir(),
        "LiteRT.js is missing; install with: npm install --no-save --prefix .web "
        "@litertjs/core@2.5.3",
    )
    return edge.Browser(PACKAGE)


@pytest.fixture
def anything(tmp_path):
    """A package and a browser that are there, and are not what they should be."""
    for package in ("core", "wasm-utils"):
        (tmp_path / package / "dist").mkdir(parents=True)
        (tmp_path / package / "dist/index.js").touch()
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho 'no display' >&2\nexit 3\n")
    program.chmod(0o755)
    return edge.Browser(tmp_path / "core", str(program))


def reason(target, path=PROBE, status="refused"):
    result = edge.benchmark(path, target=target, **QUICK)
    assert result.status == status and result.median_ms is None, result.reason
    return result.reason


def browsers():
    """Processes of browsers that we started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if "--remote-debugging-pipe" in line and "tfcompress-scratch-" in line:
            found.append(line)
    return found


@pytest.mark.parametrize("name", ["fixed", "int8_fixed"])
def test_webassembly_computes_the_bits_of_xnnpack(browser, files, name):
    result = edge.benchmark(files[name], target=browser, **QUICK)
    assert result.status == "ok", result.reason
    assert result.metrics["difference"] == 0.0
    assert result.metrics["delegated"] == "all ops"
    assert result.median_ms > 0 and result.runs == 3 and not result.emulated
    assert result.measured_by.startswith("LiteRT.js 2.")
    assert result.measured_by.endswith("WebAssembly") and "Chromium" in result.measured_by
    assert not browsers()
    assert result.measured_by in str(edge.Report(result))


@pytest.mark.slow("a software driver of a GPU")
@pytest.mark.parametrize("name", ["fixed", "int8_fixed"])
def test_webgpu_computes_what_xnnpack_computes(browser, files, name):
    software = edge.Browser(PACKAGE, options=("--use-webgpu-adapter=swiftshader",))
    result = edge.benchmark(files[name], target=software, delegate="gpu", **QUICK)
    assert result.status == "ok", result.reason
    # Sums of float32 in another order; a step of int8 is a thousand times as much.
    assert 0 < result.metrics["difference"] < 1e-5
    assert result.emulated and "swiftshader" in result.measured_by


@pytest.mark.slow("a browser with two threads")
def test_two_threads_compute_the_same(browser, files):
    result = edge.benchmark(files["fixed"], target=browser, threads=2, **QUICK)
    assert (result.status, result.metrics["difference"]) == ("ok", 0.0), result.reason


def test_types_and_sizes_that_it_does_not_take_are_named(anything, files):
    said = reason(anything, files["float32"])
    assert "takes fixed sizes" in said and "(None, 8, 8, 1)" in said and "batch_size=1" in said
    said = reason(anything, files["int8"])
    assert "is int8" in said and "io='uint8'" in said


def test_a_browser_that_ends_is_a_row_with_its_last_words(anything, files):
    assert "ended with exit code 3. It said: no display" in reason(anything, files["fixed"])


def test_what_is_missing_is_named_with_what_installs_it(anything, tmp_path):
    assert "npm install @litertjs/core" in reason(edge.Browser(tmp_path), status="error")
    none = edge.Browser(anything.package, "no-such-browser")
    assert "none of no-such-browser is installed" in reason(none, status="error")
    found = available(none)
    assert not found.available and "apt-get install chromium" in found.reason
    assert "npm install" in available(target_named(f"browser:{tmp_path}")).reason


@pytest.mark.slow("one more browser")
def test_outputs_that_differ_are_refused(browser, files, tmp_path):
    shutil.copytree(PACKAGE, core := tmp_path / "web/core")
    shutil.copytree(PACKAGE.parent / "wasm-utils", tmp_path / "web/wasm-utils")
    script = core / "dist/index.js"
    wrong = script.read_text().replace(
        "async data() {",
        "async data() { return this.wrong(); }\n"
        "  async wrong() { return (await this.right()).map(value => value + 1); }\n"
        "  async right() {",
    )
    assert wrong != script.read_text()
    script.write_text(wrong)
    said = reason(edge.Browser(core), files["fixed"])
    assert "on WebAssembly differs from XNNPACK" in said and "delegate='xnnpack'" not in said


@pytest.mark.slow("a browser that is killed with its parents")
def test_it_ends_with_the_process_that_asked_for_it(browser, files):
    code = (
        "import sys; from tfcompress import edge\n"
        "edge.benchmark(sys.argv[1], target=edge.Browser(sys.argv[2]), min_seconds=60.0)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, files["fixed"], PACKAGE])
    for _ in range(600):
        if browsers():
            break
        time.sleep(0.1)
    assert browsers()
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not browsers():
            break
        time.sleep(0.1)
    assert not browsers()


def test_a_page_reads_nothing_outside_the_packages(tmp_path):
    (tmp_path / "core").mkdir()
    (tmp_path / "secret").touch()
    (tmp_path / "core/link").symlink_to(tmp_path / "secret")
    (tmp_path / "core/index.js").write_text("1")
    site = browser_worker.Site(PROBE, tmp_path / "core", {}, [np.zeros(2, "float32")])
    with site.address() as address:
        root = "/" + address.split("/", 3)[3]
    assert site.read(f"{root}core/index.js") == (b"1", "text/javascript")
    assert site.read(f"{root}input/0") == (bytes(8), "application/octet-stream")
    assert site.read(f"{root}model")[0] == PROBE.read_bytes()
    for path in ("core/../secret", "core/link", "core/", "input/1", "utils/index.js", "etc/passwd"):
        assert site.read(root + path) is None
    assert site.read("/model") is None
