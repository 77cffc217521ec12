import pytest

from tfcompress import edge
from tfcompress.edge.registry import Registry


def test_registry_keeps_the_order_and_names_what_there_is():
    targets = Registry("target")
    targets.add(edge.Local("b"))
    targets.add(edge.Local("a"))
    assert targets.names() == ("b", "a")
    assert targets.get("a") == edge.Local("a")
    with pytest.raises(ValueError, match=r"`target` must be one of 'b', 'a'. Received: target='c'"):
        targets.get("c")


def test_registry_refuses_a_second_object_of_a_name():
    targets = Registry("target")
    targets.add(edge.Local("pi"))
    targets.add(edge.Local("pi"))  # an equal one changes nothing
    with pytest.raises(ValueError, match="a target named 'pi' already"):
        targets.add(edge.Local("pi", emulated=True))
    assert targets.get("pi") == edge.Local("pi")
