import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests.support.helpers import need
from tfcompress import edge
from tfcompress.edge.reports import html
from tfcompress.edge.reports.columns import milliseconds
from tfcompress.edge.system.machine import Machine

NASTY = '<script>alert("x")</script> & [red]$x_1$|`*_'
MACHINE = Machine(
    "A Processor", 4, "Linux 6 x86_64", "3.11.7", "ai-edge-litert 2.3.0", "2026-11-01"
)


def result(name, median, **fields):
    timing = {
        "load_ms": 1.0,
        "min_ms": 0.8 * median,
        "p10_ms": 0.9 * median,
        "median_ms": median,
        "p90_ms": 1.5 * median,
        "p99_ms": 2 * median,
        "mean_ms": median,
        "std_ms": 0.1,
        "runs": 50,
    }
    given = {
        "bytes": 20480,
        "gzip_bytes": 10240,
        "placement": edge.Placement("xnnpack", 5, 4, 1, {"PAD": 1}),
        "machine": MACHINE,
        **timing,
        **fields,
    }
    return edge.BenchmarkResult(name, f"{name}.tflite", "xnnpack", **given)


@pytest.fixture
def report():
    return edge.Report(
        [
            result(
                "float32",
                2.0,
                speedup=1.0,
                speedup_p10=1.0,
                speedup_p90=1.0,
                speedup_over="float32",
            ).with_metrics(accuracy=0.98125, zeros=0.0),
            result(
                NASTY, 0.5, speedup=4.0, speedup_p10=3.5, speedup_p90=4.25, speedup_over="float32"
            ).with_metrics(accuracy=0.975, zeros=0.8, parity="1 step"),
            result("_emulated", 31.4, emulated=True),
            edge.BenchmarkResult(
                "dead",
                "dead.tflite",
                "xnnpack",
                status="crashed",
                reason="the process was killed by SIGSEGV",
                bytes=1024,
            ),
        ],
        "Digits <b>",
    )


def test_report_has_a_row_for_each_result(report):
    rows = report.rows()
    assert rows[0] == [
        "model", "KiB", "gzip KiB", "zeros", "accuracy", "parity", "median ms", "p90 ms",
        "speed-up", "ran on",
    ]  # fmt: skip
    assert rows[1] == [
        "float32", "20.0", "10.0", "0.0%", "98.12%", "-", "2.00", "3.00", "1.00x",
        "XNNPACK 4/5 ops",
    ]  # fmt: skip
    assert rows[2][3:9] == ["80.0%", "97.50%", "1 step", "0.500", "0.750", "4.00x (3.50 to 4.25)"]
    assert rows[3][6:8] == ["31.4 (emulated)", "47.1 (emulated)"]
    assert rows[4][1:] == [
        "1.0", "-", "-", "-", "-", "-", "-", "-", "crashed: the process was killed by SIGSEGV",
    ]  # fmt: skip


def test_report_leaves_empty_columns_out():
    bare = edge.BenchmarkResult("m", "m.tflite", "xnnpack", bytes=1)
    assert edge.Report(bare).rows()[0] == ["model", "KiB", "gzip KiB", "ran on"]
    extra = edge.Report(bare.with_metrics(snr_db=41.237, params=1000))
    assert extra.rows()[0] == ["model", "KiB", "gzip KiB", "snr_db", "params", "ran on"]
    assert extra.rows()[1][3:5] == ["41.2", "1000"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00107, "0.0011"), (0.0123, "0.0123"), (0.5, "0.500"), (1.234, "1.23"), (457.4, "457")],
)
def test_report_rounds_milliseconds(value, text):
    assert milliseconds(value) == text


def test_report_table_shows_names_as_they_are(report):
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    console.print(report.table())
    printed = console.file.getvalue()
    assert NASTY in printed
    assert "crashed: the process was killed by SIGSEGV" in printed
    assert "31.4*" in printed and "*: run by an emulator" in printed
    narrow = Console(file=io.StringIO(), width=80, force_terminal=False)
    ok = edge.Report([report.results[0].with_metrics(parity="1 LSB")] * 2)
    narrow.print(ok.table())
    table = narrow.file.getvalue().split("Sizes are")[0]
    # Nothing of a number is cut off in a terminal of the usual width.
    for number in ("98.12%", "1 LSB", "2.00", "3.00", "1.00x", "10.0"):
        assert number in table
    assert "\u2026" not in table


def test_report_prints_its_title_and_where_it_was_measured(report):
    text = str(report)
    assert text.startswith("Digits <b>\n\nmodel")
    assert "Speed-ups are over 'float32'" in text
    assert "Measured on A Processor, 4 cores, Linux 6 x86_64, Python 3.11.7" in text


def test_markdown_is_one_line_a_row_and_escaped(report):
    lines = report.to_markdown().splitlines()
    assert lines[0] == "# Digits &lt;b&gt;"
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 6
    # Ten cells have eleven bars that are not escaped.
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {11}
    assert r"&lt;script&gt;" in table[3] and r"\[red\]\$x\_1\$\|\`\*\_" in table[3]


def test_json_loads_back_equal(report, tmp_path):
    path = report.save(tmp_path / "report.json")
    assert edge.Report.load(path) == report
    data = json.loads(path.read_text())
    assert data["schema_version"] == 1
    assert data["results"][0]["machine"]["cpu"] == "A Processor"
    assert data["results"][0]["placement"]["left_behind"] == {"PAD": 1}


texts = st.text(st.characters(codec="utf-8"), max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=50)
@given(texts, texts, numbers, st.dictionaries(texts, st.one_of(texts, numbers, st.integers())))
def test_any_result_survives_json(name, reason, value, metrics):
    report = edge.Report(result(name, 1.0, reason=reason, mean_ms=value, metrics=metrics))
    assert edge.Report.from_dict(json.loads(report.to_json())) == report


def test_infinite_metrics_become_texts():
    report = edge.Report(result("m", 1.0).with_metrics(snr=float("inf")))
    assert json.loads(report.to_json())["results"][0]["metrics"] == {"snr": "inf"}


def test_report_load_rejects_other_files(tmp_path):
    path = tmp_path / "x.json"
    for text, message in (
        ("{", "is no JSON file"),
        ("[]", "version: None"),
        ('{"schema_version": 99}', "version: 99"),
        ('{"schema_version": 1}', "holds no report"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            edge.Report.load(path)
    with pytest.raises(TypeError, match="Received: 'float32'"):
        edge.Report(["float32"])


def test_report_save_writes_a_file_whole_or_not_at_all(report, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("the old one")
    with pytest.raises(ValueError, match=r"\.json, \.md or \.html\. Received: 'report\.pdf'"):
        report.save(tmp_path / "report.pdf")
    with pytest.raises(FileNotFoundError, match=r"folder .*nowhere does not exist"):
        report.save(tmp_path / "nowhere" / "report.json")

    def fails(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(html, "accuracy_svg", fails)
    with pytest.raises(OSError, match="disk full"):
        report.save(path)
    monkeypatch.undo()
    monkeypatch.setattr("pathlib.Path.replace", fails)
    with pytest.raises(OSError, match="disk full"):
        report.save(path)
    assert path.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [path]


class Page(HTMLParser):
    """The page's links, texts and counts, as a browser would read them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.labels = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        given = dict(attrs)
        self.links += [given[k] for k in ("src", "href", "xlink:href", "data") if k in given]
        if tag == "svg":
            self.labels.append(given.get("aria-label"))


def test_html_is_self_contained_and_escaped(report):
    text = report.to_html()
    parsed = Page(text)
    assert parsed.tags.count("tr") == 5 and parsed.tags.count("svg") == 2
    assert "script" not in parsed.tags and "img" not in parsed.tags
    # "#...": marks within a plot; "data:,": an empty icon, so that no browser asks for one.
    assert all(link.startswith("#") or link == "data:," for link in parsed.links)
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    assert parsed.labels[0].startswith("Scatter plot of size against accuracy: float32 98.12 %")
    assert parsed.labels[1].startswith("Bar chart of the median latency: float32 2.00 ms")
    assert "<title>Digits &lt;b&gt;</title>" in text
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;" in text


def test_html_attributes_hold_whatever_is_in_a_name():
    name = "x\" onfocus='y' autofocus=\"\x1b[1m"
    shown = edge.BenchmarkResult(name, name, "xnnpack", bytes=9, median_ms=1.0, runs=1)
    text = edge.Report(shown.with_metrics(accuracy=0.5, **{name: name}), title=name).to_html()
    names = []

    class Attributes(HTMLParser):
        def handle_starttag(self, tag, attrs):
            names.extend(key for key, _ in attrs)

    Attributes().feed(text)
    assert "aria-label" in names and not {"onfocus", "autofocus"} & set(names)
    assert "\x1b" not in text


def test_plots_leave_matplotlib_as_it_was(report):
    before = dict(matplotlib.rcParams)
    report.to_html()
    assert dict(matplotlib.rcParams) == before
    # Keras imports pyplot; alone, this package must not.
    script = f"""
import importlib.util, sys
folder = {str(Path(edge.__file__).parent)!r}
spec = importlib.util.spec_from_file_location(
    "alone", folder + "/__init__.py", submodule_search_locations=[folder]
)
alone = sys.modules["alone"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(alone)
result = alone.BenchmarkResult("m", "m", "xnnpack", bytes=1, median_ms=1.0)
assert alone.Report(result.with_metrics(accuracy=1.0)).to_html().count("<svg") == 2
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_without_accuracy_or_latency_there_is_no_plot():
    bare = edge.BenchmarkResult("m", "m.tflite", "xnnpack", bytes=1)
    assert Page(edge.Report(bare).to_html()).tags.count("svg") == 0
    assert Page(edge.Report(result("m", 1.0)).to_html()).tags.count("svg") == 1


def _chromium(tmp_path, page_path, *options):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    need(browser, "Chromium is missing; install with: apt-get install chromium")
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr", *options, page_path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("width", [1200, 360])
def test_html_in_a_real_browser(report, tmp_path, width):
    plain = report.save(tmp_path / "report.html")
    dom, log = _chromium(tmp_path, plain, "--dump-dom", f"--window-size={width},900")
    # The page's policy forbids every load, and a load that is forbidden is an error here.
    assert "CONSOLE" not in log
    rows = re.findall(r"<tr.*?</tr>", dom, re.DOTALL)
    assert len(rows) == 5
    assert "crashed: the process was killed by SIGSEGV" in rows[4]
    assert NASTY.replace('"', "&quot;") not in dom and "<script>" not in dom
    assert dom.count("<svg") == 2

    # The same page, with a script that writes down what was laid out.
    measured = tmp_path / "measured.html"
    policy = re.compile(r"<meta http-equiv=.*?>", re.DOTALL)
    script = """<script>
      const box = e => { const r = e.getBoundingClientRect(); return [r.width, r.height]; };
      document.body.dataset.found = JSON.stringify({
        plots: [...document.querySelectorAll("svg")].map(box),
        texts: [...document.querySelectorAll("svg text")].map(box),
        page: [document.documentElement.scrollWidth, window.innerWidth],
        names: [...document.querySelectorAll("tbody th")].map(e => e.innerText),
        loaded: performance.getEntriesByType("resource").map(e => e.name),
      });
    </script></body>"""
    measured.write_text(policy.sub("", plain.read_text(), count=1).replace("</body>", script))
    dom, _ = _chromium(tmp_path, measured, "--dump-dom", f"--window-size={width},900")
    attribute = re.search(r'data-found="(.*?)"', dom)[1].replace("&quot;", '"')
    found = json.loads(attribute.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert len(found["plots"]) == 2
    assert all(w > 250 and h > 80 for w, h in found["plots"])
    assert len(found["texts"]) > 15 and all(w > 0 and h > 0 for w, h in found["texts"])
    # The page itself never scrolls sideways; only the table does, in its own box.
    assert found["page"][0] <= found["page"][1]
    assert found["names"] == ["float32", NASTY, "_emulated", "dead"]
    assert [name for name in found["loaded"] if not name.startswith("data:")] == []


def test_names_in_any_script_and_without_control_characters():
    name = "\u6a21\u578b \U0001f680 \x1b[31mred\n\x00end"
    report = edge.Report(result(name, 1.0).with_metrics(accuracy=0.5))
    clean = "\u6a21\u578b \U0001f680 [31mred end"
    assert report.rows()[1][0] == clean
    # In the table, the latency plot, and the other plot's legend and description.
    assert report.to_html().count(clean) >= 4
    assert "\x1b" not in report.to_html() + report.to_markdown() + str(report)
    assert edge.Report.from_dict(report.to_dict()).results[0].name == name


def test_many_models_with_long_names_are_drawn():
    many = [
        dataclasses.replace(result(f"{i} a rather long name of a model {i}", 0.1 * i + 0.1))
        .with_metrics(accuracy=0.9 + i / 1000)
        for i in range(20)
    ]  # fmt: skip
    assert Page(edge.Report(many).to_html()).tags.count("svg") == 2
