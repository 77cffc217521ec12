from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from tfcompress.converters import (
    DynamicInt8,
    Float16,
    Float32,
    Int4Weights,
    Int8,
    Int16x8,
    Precision,
    WeightOnly,
)
from tfcompress.converters.precisions import registry
from tfcompress.converters.precisions.registry import (
    check_precision,
    register_precision,
    registered_precisions,
)


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_PRECISIONS", dict(registry._PRECISIONS))


@dataclass(frozen=True)
class Half(Precision):
    name: ClassVar[str] = "half"


def test_registered_precisions_holds_those_of_the_package():
    assert Float32() == Float32()
    classes = (Float32, Float16, DynamicInt8, Int8, Int16x8, Int4Weights, WeightOnly)
    assert registered_precisions() == {cls.name: cls for cls in classes}


def test_check_precision_wants_an_instance():
    for config in (Float32(), Float16(), DynamicInt8(), Int8(), Half()):
        assert check_precision(config) is config
    with pytest.raises(TypeError, match=r"add parentheses, Float16\(\)"):
        check_precision(Float16)
    with pytest.raises(TypeError, match="Received: precision=8"):
        check_precision(8)


def test_check_precision_takes_names():
    assert check_precision("float16") == Float16()
    samples = np.zeros((2, 3), "float32")
    assert check_precision("int8", samples).calibration is samples
    assert check_precision("int8").calibration is None
    assert check_precision("weight_only", samples).calibration is samples
    with pytest.raises(ValueError, match=r"one of .*'float32', .*Received: precision='int7'"):
        check_precision("int7")


def test_check_precision_lists_registered_precisions():
    register_precision(Half)
    with pytest.raises(TypeError, match=r"Int8\(calibration=samples\), .*Half\(\)\. Received"):
        check_precision(None)


def test_register_precision_returns_the_class_and_takes_it_twice():
    assert register_precision(Half) is Half
    assert register_precision(Half) is Half
    assert registered_precisions()["half"] is Half


def test_register_precision_refuses_a_name_that_is_taken():
    @dataclass(frozen=True)
    class Other(Precision):
        name: ClassVar[str] = "int8"

    with pytest.raises(ValueError, match="'int8' is taken by Int8"):
        register_precision(Other)
    assert registered_precisions()["int8"] is Int8


def test_register_precision_refuses_a_class_of_equal_name_from_another_module():
    @dataclass(frozen=True)
    class Other(Precision):
        name: ClassVar[str] = "int8"

    Other.__qualname__ = Int8.__qualname__
    with pytest.raises(ValueError, match="taken by Int8 in tfcompress"):
        register_precision(Other)
    assert registered_precisions()["int8"] is Int8


@dataclass(frozen=True)
class Nameless(Precision):
    pass


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (int, "subclass of Precision"),
        (Half(), "subclass of Precision"),
        (Nameless, "Nameless has no name: add `name: ClassVar"),
    ],
)
def test_register_precision_refuses_what_is_no_precision(candidate, message):
    with pytest.raises(TypeError, match=message):
        register_precision(candidate)
