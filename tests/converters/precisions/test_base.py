import dataclasses

import numpy as np
import pytest

from tfcompress.converters import DynamicInt8, Float16, Float32, Int8
from tfcompress.converters.precisions.base import check_precision


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"io": "int16"}, "io='int16'"),
        ({"max_samples": 0}, "max_samples=0"),
        ({"max_samples": 2.5}, "max_samples=2.5"),
        ({"calibration": "nowhere.npz"}, "nowhere.npz"),
    ],
)
def test_int8_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Int8(**arguments)


def test_are_values_without_their_data():
    assert Float32() == Float32()
    assert Int8(calibration=np.ones(3)) == Int8(calibration=np.zeros(5))
    assert "calibration" not in repr(Int8(calibration=np.ones(3)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Int8().io = "int8"


def test_a_class_is_no_precision():
    for config in (Float32(), Float16(), DynamicInt8(), Int8()):
        assert check_precision(config) is config
    with pytest.raises(TypeError, match=r"add parentheses, Float16\(\)"):
        check_precision(Float16)
    with pytest.raises(TypeError, match="Received: precision='int8'"):
        check_precision("int8")
