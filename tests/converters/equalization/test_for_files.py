"""Which model each file is made from, and what `Int8(equalize=True)` refuses."""

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from tfcompress import converters
from tfcompress.converters.equalization.for_files import by_model
from tfcompress.converters.preparation import check_files, prepare

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")


def net():
    return keras.Sequential(
        [keras.Input((4,), name="x"), layers.Dense(8, "relu"), layers.Dense(2, name="y")]
    )


def test_files_that_are_equalized_over_the_same_samples_share_a_model(tmp_path):
    model = net()
    even = converters.Int8(calibration=(row for row in X), equalize=True)
    files = {
        tmp_path / "a.tflite": even,
        tmp_path / "b.tflite": converters.Float32(),
        tmp_path / "c.tflite": even,
        tmp_path / "d.tflite": converters.Int8(calibration=X[:8], equalize=True),
    }
    precisions = check_files(files, None)
    parts = list(by_model(prepare(model, precisions, 2), precisions))
    assert [[path.stem for path in chosen] for _, chosen in parts] == [["b"], ["a", "c"], ["d"]]
    plain, first, second = (part for part, _ in parts)
    assert plain.model.weights[0] is model.weights[0]
    for part, samples in ((first, X), (second, X[:8])):
        wanted = tfc.equalize(model, samples)
        for one, other in zip(part.model.weights, wanted.weights, strict=True):
            np.testing.assert_array_equal(one, other)
        assert part.call.inputs[0].shape == (2, 4)
        assert all(np.array_equal(arrays["x"], samples) for arrays in part.samples)


def test_equalize_wants_samples_and_a_graph(tmp_path):
    with pytest.raises(ValueError, match="give them as `calibration`"):
        converters.Int8(equalize=True)
    qat = tfc.quantize_aware(net())
    precision = converters.Int8(calibration=X, equalize=True)
    with pytest.raises(converters.ConversionError, match="cannot be equalized"):
        converters.convert(qat, tmp_path / "never.tflite", precision)
    assert not list(tmp_path.iterdir())
