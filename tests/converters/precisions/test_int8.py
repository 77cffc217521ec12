import dataclasses

import numpy as np
import pytest

from tfcompress.converters import Int8


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
    with pytest.raises((TypeError, ValueError), match=message):
        Int8(**arguments)


def test_int8_is_a_value_without_its_data():
    assert Int8(calibration=np.ones(3)) == Int8(calibration=np.zeros(5))
    assert Int8(io="int8") != Int8()
    assert "calibration" not in repr(Int8(calibration=np.ones(3)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Int8().io = "int8"


def test_int8_asks_the_converter_for_its_io():
    options = Int8(io="uint8").converter_options()
    assert (options.input_type, options.output_type) == ("uint8", "uint8")
