import pytest

from tfcompress import edge
from tfcompress.edge.engines.base import DELEGATES
from tfcompress.edge.system.tflite import PROBE


def test_delegates_are_registered_in_the_order_in_which_they_are_tried():
    assert DELEGATES.names() == ("xnnpack", "reference", "gpu")


def test_only_the_gpu_is_compared_with_the_cpu():
    compared = [n for n in DELEGATES.names() if DELEGATES.get(n).compare is not None]
    assert compared == ["gpu"]


@pytest.mark.parametrize("name", ["xnnpack", "reference"])
def test_delegate_loads_places_and_tells_whether_it_is_available(name):
    delegate = DELEGATES.get(name)
    engine = delegate.load(PROBE, None, None, True)
    assert [info.name for info in engine.inputs] == ["x"]
    assert engine.load_ns > 0
    assert delegate.place(engine) == edge.placement(PROBE, name)
    found = delegate.available()
    assert (found.name, found.available) == (name, True)
    assert delegate.description in found.reason


@pytest.mark.parametrize(
    ("placed", "text"),
    [
        (edge.Placement("xnnpack", 3, 3, 1), "XNNPACK"),
        (edge.Placement("xnnpack", 3, 2, 2, {"ARG_MAX": 1}), "XNNPACK 2/3 ops"),
        (edge.Placement("xnnpack", 3, 0, 0), "built-in kernels, no op delegated"),
        (edge.Placement("reference", 3, 0, 0), "reference kernels"),
        (edge.Placement("gpu", 3, 3, 1, {}, "A Card"), "GPU (A Card)"),
        (edge.Placement("gpu", 3, 3, 1, {}, "A Card", True), "GPU (A Card, software)"),
        (
            edge.Placement("gpu", 3, None, 1, {"ARG_MAX": None}),
            "GPU, in part: ARG_MAX and maybe more on the CPU",
        ),
        # From a report that another version has saved.
        (edge.Placement("npu", 3, 2, 1), "npu 2/3 ops"),
        (edge.Placement("npu", 3, 0, 0), "built-in kernels, no op delegated"),
    ],
)
def test_placement_reads_as_text(placed, text):
    assert str(placed) == text
