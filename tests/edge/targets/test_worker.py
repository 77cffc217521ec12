import pytest

from tfcompress import edge
from tfcompress.edge.system.child import ChildFailure


def test_worker_imports_neither_tensorflow_nor_tfcompress():
    with edge.Local().session([]) as (child, _):
        child.request("probe", 60, delegate="xnnpack")
        modules = child.request("modules", 60)["modules"]
    tops = {name.partition(".")[0] for name in modules}
    assert "numpy" in tops and "ai_edge_litert" in tops
    assert not tops & {"tensorflow", "keras", "tfcompress", "rich", "matplotlib", "click"}


def test_worker_answers_on_after_a_refusal_and_an_error():
    with edge.Local().session([]) as (child, _):
        for command, arguments, status in (
            ("placement", {"path": "none", "delegate": "xnnpack", "threads": None}, "refused"),
            ("round", {"runs": 1, "seconds": 0.0}, "error"),
        ):
            with pytest.raises(ChildFailure) as caught:
                child.request(command, 60, **arguments)
            assert caught.value.status == status
        assert child.request("probe", 60, delegate="xnnpack")["available"]
