import numpy as np
import pytest

from tfcompress.converters import WeightOnly


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"rounding": "up"}, "rounding='up'"),
        ({"rounding": "gptq"}, "calibration=samples"),
        ({"calibration": []}, "calibration=[]"),
        ({"max_samples": 0}, "max_samples=0"),
        ({"block": 32}, "activations='float32'"),
    ],
)
def test_weight_only_refuses_what_does_not_go_together(arguments, said):
    with pytest.raises(ValueError) as caught:
        WeightOnly(4, **arguments)
    assert said in str(caught.value)


def test_weight_only_hands_its_samples_to_gptq_alone():
    samples = np.zeros((2, 3))
    precision = WeightOnly(4, rounding="gptq", calibration=samples, max_samples=1)
    assert precision.calibration_data() == (samples, 1)
    assert "calibration" not in precision.weights()
    assert WeightOnly().calibration_data() is None
