"""What converts and what does not, over the kinds of model that people have."""

import numpy as np
import pytest

from tests.zoo.architectures import ARCHITECTURES
from tfcompress import converters

pytestmark = pytest.mark.slow("converts all architectures")

EXACT = [
    "dense MLP",
    "conv1d-bn-relu",
    "conv2d-transpose with bn-relu",
    "separable 2d",
    "depthwise-bn-relu6",
    "transformer block",
    "nested model",
    "TimeDistributed",
    "raw ops on Keras tensors",
    "custom layer",
    "siamese",
    "multi-input multi-output",
    "PReLU/LeakyReLU",
    "Rescaling + RandomFlip",
    "subclassed model",
]


@pytest.mark.parametrize("name", EXACT)
def test_float32_is_exact_and_int8_close(name, tmp_path):
    case = ARCHITECTURES[name]()
    wanted = {
        tmp_path / "float32.tflite": converters.Float32(),
        tmp_path / "int8.tflite": converters.Int8(calibration=case.x),
    }
    exact, int8 = converters.convert_all(case.model, wanted)
    # Sums in another order: 120 dB is a relative error of 1e-6.
    converters.verify(case.model, exact, case.x).raise_if_above(snr_below=120)
    # Eight bits hold 50 dB at best; a handful of roundings in a row leaves over 30.
    found = converters.verify(case.model, int8, case.x).raise_if_above(snr_below=30)
    assert int8.float_macs == ()
    assert all(np.isfinite(output.max_error) for output in found.outputs)
    assert int8.bytes > 0


@pytest.mark.parametrize("name", ["LSTM", "GRU", "BiLSTM"])
def test_loops_convert_with_a_fixed_batch(name, tmp_path):
    case = ARCHITECTURES[name]()
    file = converters.convert(case.model, tmp_path / "m.tflite", batch_size=1)
    converters.verify(case.model, file, case.x).raise_if_above(snr_below=110)
