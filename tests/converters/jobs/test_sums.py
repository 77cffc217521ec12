"""Sums in int8 are right on both kernels: TFLite's reference kernel of SUM gives zeros."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfcompress as tfc
from tfcompress import converters

X = np.random.default_rng(0).normal(size=(32, 6, 6, 3)).astype("float32")


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 6, 3), name="x")
    y = layers.Conv2D(4, 3)(x)
    outputs = {
        "over_places": layers.Dense(3)(ops.sum(y, axis=(1, 2))),
        "over_channels": layers.Conv2D(3, 1)(y * ops.sum(y, axis=-1, keepdims=True)),
        "end": ops.sum(y, axis=1),
    }
    return keras.Model(x, outputs)


@pytest.mark.parametrize("batch", [1, None])
def test_sums_after_training(model, batch, tmp_path):
    file = converters.convert(
        model, tmp_path / "m.tflite", converters.Int8(calibration=X), batch_size=batch
    )
    assert "SUM" not in converters.inspect(file).ops
    for delegate in ("xnnpack", "reference"):
        for output in converters.verify(model, file, X, delegate=delegate).outputs:
            # Eight bits and two or three ops leave 30 dB; zeros for a sum leave 0.
            assert output.snr_db > 25, (output.name, delegate, output.snr_db)


def test_sums_after_quantization_aware_training(model, tmp_path):
    qat = tfc.quantize_aware(model)
    tfc.calibrate(qat, X, batch_size=32)
    file = converters.convert(qat, tmp_path / "m.tflite", converters.Int8(), batch_size=1)
    for delegate in ("xnnpack", "reference"):
        for output in converters.verify(qat, file, X, delegate=delegate).outputs:
            seen = (output.name, delegate, output.max_lsb, output.mean_lsb)
            assert output.max_lsb <= 2.01 and output.mean_lsb < 0.5, seen
