"""Results in a notebook: what `print` shows, with names of files and layers as text."""

import dataclasses

import pytest

import tfcompress as tfc
from tfcompress import converters, edge
from tfcompress.edge.shown import Shown

LINES = {"ChannelGroup", "GraphOp", "Placement", "RuleViolation", "TensorInfo"}  # no tables
PUBLIC = [getattr(part, name) for part in (tfc, converters, edge) for name in part.__all__]


def test_a_notebook_shows_what_print_shows_and_obeys_no_name():
    result = edge.BenchmarkResult("<script>alert(1)</script> & co", "m.tflite", "xnnpack")
    report = edge.Report(result)
    shown = report._repr_html_()
    assert shown.startswith("<pre>") and shown.endswith("</pre>")
    assert "<script>" not in shown and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in shown
    assert len(shown.splitlines()) == len(str(report).splitlines())


@pytest.mark.parametrize("kind", [k for k in PUBLIC if dataclasses.is_dataclass(k)])
def test_all_that_prints_a_table_is_shown_so(kind):
    assert issubclass(kind, Shown) == ("__str__" in vars(kind) and kind.__name__ not in LINES)
